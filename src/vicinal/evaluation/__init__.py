"""What a trained network is worth: figures on any module that maps data space to logits."""

from vicinal.evaluation.attacks import PGD, AttackFigures
from vicinal.evaluation.calibration import Calibration, bin_sums
from vicinal.evaluation.corruptions import CHEAP, CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt
from vicinal.evaluation.figures import Figures, figures, probabilities
from vicinal.evaluation.measures import MEASURES
from vicinal.evaluation.reconstruction import Reconstruction, reconstruction
from vicinal.evaluation.smoothness import (
    LocalLinearity,
    Steepness,
    jacobian_norm,
    lipschitz_quotients,
    local_linearity,
)

__all__ = [
    "CHEAP",
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "MEASURES",
    "PGD",
    "SEVERITIES",
    "AttackFigures",
    "Calibration",
    "Figures",
    "LocalLinearity",
    "Reconstruction",
    "Steepness",
    "bin_sums",
    "corrupt",
    "figures",
    "jacobian_norm",
    "lipschitz_quotients",
    "local_linearity",
    "probabilities",
    "reconstruction",
]
