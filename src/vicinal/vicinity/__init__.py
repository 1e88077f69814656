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
from vicinal.vicinity.discrepancy import EstimateName, KernelName, info_vae_loss, info_vae_weights, mmd2, psnr
from vicinal.vicinity.distances import DistanceName, cross_entropy, distance, entropy, kl, squared_error
from vicinal.vicinity.interpolation import Mixing, PerName, draw_beta, draw_mixing, interleave, mix, sharpen
from vicinal.vicinity.latent import codes, decoded, endpoint_mix, latent_adversary, latent_mix, mixup_r
from vicinal.vicinity.lipschitz import (
    InputMetric,
    LipschitzSettings,
    Neighbour,
    OutputMetric,
    Penalty,
    adversarial_neighbour,
    lipschitz_penalty,
    output_distance,
)
from vicinal.vicinity.projected import NormName, projected_ascent, random_start

__all__ = [
    "DistanceName",
    "EstimateName",
    "InputMetric",
    "KernelName",
    "LipschitzSettings",
    "Mixing",
    "Neighbour",
    "NormName",
    "OutputMetric",
    "Penalty",
    "PerName",
    "Regime",
    "SearchName",
    "adversarial_direction",
    "adversarial_neighbour",
    "codes",
    "cross_entropy",
    "decoded",
    "distance",
    "draw_beta",
    "draw_mixing",
    "endpoint_mix",
    "entropy",
    "full_precision",
    "gauss_newton_direction",
    "info_vae_loss",
    "info_vae_weights",
    "interleave",
    "kl",
    "latent_adversary",
    "latent_mix",
    "lipschitz_penalty",
    "mix",
    "mixup_r",
    "mmd2",
    "output_distance",
    "projected_ascent",
    "psnr",
    "random_direction",
    "random_start",
    "sharpen",
    "squared_error",
    "unit",
]
