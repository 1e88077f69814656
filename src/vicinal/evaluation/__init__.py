"""What a trained network is worth: figures on any module that maps data space to logits."""

from vicinal.evaluation.attacks import PGD, AttackFigures
from vicinal.evaluation.calibration import Calibration, bin_sums
from vicinal.evaluation.figures import Figures, figures, probabilities
from vicinal.evaluation.smoothness import (
    LocalLinearity,
    Steepness,
    jacobian_norm,
    lipschitz_quotients,
    local_linearity,
)

__all__ = [
    "PGD",
    "AttackFigures",
    "Calibration",
    "Figures",
    "LocalLinearity",
    "Steepness",
    "bin_sums",
    "figures",
    "jacobian_norm",
    "lipschitz_quotients",
    "local_linearity",
    "probabilities",
]
