"""What is trained: networks with preprocessing inside, and the policy of each of their passes."""

from vicinal.networks.auto import auto_name
from vicinal.networks.autoencoder import Autoencoder
from vicinal.networks.classifier import Classifier, Parts
from vicinal.networks.cnn13 import cnn13
from vicinal.networks.factory import NETWORKS, Network, build_network, network_settings, start_network
from vicinal.networks.fitting import ZCAVariant, fit_normalise, fit_preprocess, fit_zca
from vicinal.networks.folding import FoldedNorm, folded
from vicinal.networks.foreign import config_of
from vicinal.networks.initialise import initialise_from_data
from vicinal.networks.layers import GaussianNoise, MeanOnlyBatchNorm
from vicinal.networks.mlp import mlp
from vicinal.networks.mmd_vae import MMDVAE, Posterior, mmd_vae
from vicinal.networks.passes import EVAL, FROZEN_STATS, TRAIN, PassPolicy, applied, run
from vicinal.networks.pca import PCAAutoencoder, fit_pca, pca
from vicinal.networks.preact_resnet import preact_resnet18
from vicinal.networks.preprocess import ZCA, Identity, Normalise, PerImage, PreprocessName, unfitted_preprocess
from vicinal.networks.small_cnn import small_cnn
from vicinal.networks.weights import Start, load_weights, split_weights
from vicinal.networks.wide_resnet import wide_resnet, wrn_28_2, wrn_28_10

__all__ = [
    "EVAL",
    "FROZEN_STATS",
    "MMDVAE",
    "NETWORKS",
    "TRAIN",
    "ZCA",
    "Autoencoder",
    "Classifier",
    "FoldedNorm",
    "GaussianNoise",
    "Identity",
    "MeanOnlyBatchNorm",
    "Network",
    "Normalise",
    "PCAAutoencoder",
    "Parts",
    "PassPolicy",
    "PerImage",
    "Posterior",
    "PreprocessName",
    "Start",
    "ZCAVariant",
    "applied",
    "auto_name",
    "build_network",
    "cnn13",
    "config_of",
    "fit_normalise",
    "fit_pca",
    "fit_preprocess",
    "fit_zca",
    "folded",
    "initialise_from_data",
    "load_weights",
    "mlp",
    "mmd_vae",
    "network_settings",
    "pca",
    "preact_resnet18",
    "run",
    "small_cnn",
    "split_weights",
    "start_network",
    "unfitted_preprocess",
    "wide_resnet",
    "wrn_28_2",
    "wrn_28_10",
]
