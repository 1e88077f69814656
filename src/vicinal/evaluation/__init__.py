"""What a trained network is worth: figures on any module that maps data space to logits."""

from vicinal.evaluation.attacks import (
    APGD,
    FGM,
    FGSM,
    PGD,
    AttackFigures,
    GradientAttack,
    MomentumPGD,
    Perturbed,
    RobustnessTable,
    Sanity,
    perturb,
    robustness,
    sanity,
)
from vicinal.evaluation.calibration import (
    AdaptiveCalibration,
    Calibration,
    CalibrationFigures,
    ClasswiseCalibration,
    bin_sums,
    calibration_figures,
)
from vicinal.evaluation.corruptions import CHEAP, CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt
from vicinal.evaluation.curvature import LowerEstimate, gradient_quotients, hessian_norm, mixup_gap, pair_quotients
from vicinal.evaluation.figures import Figures, figures, probabilities
from vicinal.evaluation.lipschitz_bounds import LipschitzBound, lipschitz_bound
from vicinal.evaluation.measures import MEASURES
from vicinal.evaluation.paths import InterpolationPaths, interpolation_paths
from vicinal.evaluation.reconstruction import Reconstruction, reconstruction
from vicinal.evaluation.smoothness import (
    LocalLinearity,
    Steepness,
    jacobian_norm,
    lipschitz_quotients,
    local_linearity,
)
from vicinal.evaluation.temperature import Tempered, fit_temperature, temperature_scaling

__all__ = [
    "APGD",
    "CHEAP",
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "FGM",
    "FGSM",
    "MEASURES",
    "PGD",
    "SEVERITIES",
    "AdaptiveCalibration",
    "AttackFigures",
    "Calibration",
    "CalibrationFigures",
    "ClasswiseCalibration",
    "Figures",
    "GradientAttack",
    "InterpolationPaths",
    "LipschitzBound",
    "LocalLinearity",
    "LowerEstimate",
    "MomentumPGD",
    "Perturbed",
    "Reconstruction",
    "RobustnessTable",
    "Sanity",
    "Steepness",
    "Tempered",
    "bin_sums",
    "calibration_figures",
    "corrupt",
    "figures",
    "fit_temperature",
    "gradient_quotients",
    "hessian_norm",
    "interpolation_paths",
    "jacobian_norm",
    "lipschitz_bound",
    "lipschitz_quotients",
    "local_linearity",
    "mixup_gap",
    "pair_quotients",
    "perturb",
    "probabilities",
    "reconstruction",
    "robustness",
    "sanity",
    "temperature_scaling",
]
