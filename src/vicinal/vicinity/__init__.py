"""How a neighbour is made: by interpolation, by an adversarial direction; and how far apart predictions are."""

from vicinal.vicinity.adversary import (
    Regime,
    SearchName,
    adversarial_direction,
    full_precision,
    gauss_newton_direction,
    random_direction,
    unit,
)
from vicinal.vicinity.distances import DistanceName, cross_entropy, distance, entropy, kl, squared_error
from vicinal.vicinity.interpolation import Mixing, PerName, draw_beta, draw_mixing, mix

__all__ = [
    "DistanceName",
    "Mixing",
    "PerName",
    "Regime",
    "SearchName",
    "adversarial_direction",
    "cross_entropy",
    "distance",
    "draw_beta",
    "draw_mixing",
    "entropy",
    "full_precision",
    "gauss_newton_direction",
    "kl",
    "mix",
    "random_direction",
    "squared_error",
    "unit",
]
