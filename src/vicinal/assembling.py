"""An experiment's parts, loaded and built."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vicinal.data import Dataset, Subset, load, make_split
from vicinal.errors import InputError
from vicinal.experiment import Experiment
from vicinal.networks import (
    Autoencoder,
    Network,
    Start,
    build_network,
    config_of,
    fit_preprocess,
    start_network,
    unfitted_preprocess,
)
from vicinal.randomness import seed_of

if TYPE_CHECKING:
    from vicinal.training.module import VicinalModule


class Assembled:
    """An experiment's parts, loaded and built.

    Args:
        experiment: the experiment.
        dataset: its data, if loaded already.
        autoencoder: the trained autoencoder, if its method needs one.

    Attributes:
        start: the pretrained weights that the last network made here started from, or None.
    """

    def __init__(
        self, experiment: Experiment, dataset: Dataset | None = None, *, autoencoder: Autoencoder | None = None
    ) -> None:
        self.experiment = experiment
        self.autoencoder = autoencoder
        self.start: Start | None = None
        self.method = experiment.build_method()
        self.dataset = dataset or load(experiment.data)
        if experiment.augment.active and not self.dataset.is_images:
            raise InputError("augment: crops and flips are for images, and these are feature vectors; leave them off")
        if self.method.needs.strong and not self.dataset.is_images:
            raise InputError(f"method: {experiment.method.name} needs strong views, which are for images")
        self.split = make_split(self.dataset, experiment.split, experiment.seed)

    @functools.cached_property
    def preprocess(self) -> nn.Module:
        """The preprocessing layer, fitted on the clean training images, those of validation left out."""
        return fit_preprocess(self.experiment.preprocess, self.inputs)

    @property
    def inputs(self) -> Subset:
        """Training inputs, those of validation left out."""
        return Subset(self.dataset.train.x, torch.cat([self.split.labelled, self.split.unlabelled]).unique())

    def network(self, purpose: str = "initialisation", *, fitted: bool = True) -> Network:
        """The network that training starts with: the same for the same experiment, another for another ``purpose``.

        Args:
            purpose: names the draws of what does not come from pretrained weights.
            fitted: with the fitted preprocessing, and the pretrained weights if the experiment names some; without, the
                network waits for saved weights.
        """
        name, shape, classes = self.experiment.preprocess, self.dataset.shape, len(self.dataset.classes)
        preprocess = copy.deepcopy(self.preprocess) if fitted else unfitted_preprocess(name, shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.experiment.seed, purpose))
            if not fitted:
                return build_network(self.experiment.network, shape, classes, preprocess)
            network, self.start = start_network(self.experiment.network, shape, classes, preprocess)
            return network

    def module(self, *, fitted: bool = True) -> VicinalModule:
        """The LightningModule that trains a fresh network, or with ``fitted=False`` one that takes saved weights."""
        from vicinal.training.module import VicinalModule

        independent: Callable[[], nn.Module] = lambda: self.network("teacher initialisation", fitted=fitted)  # noqa: E731
        network = self.network(fitted=fitted)
        about: dict[str, Any] = {"shape": list(self.dataset.shape), "classes": list(self.dataset.classes)}
        config = config_of(network)
        about |= {} if config is None else {"config": config}
        about |= {} if self.start is None else {"start": self.start.as_dict()}
        return VicinalModule(
            network,
            self.method,
            self.experiment.training,
            augment=self.experiment.augment,
            strong=self.experiment.strong,
            teacher=self.experiment.teacher,
            averaging=self.experiment.averaging,
            seed=self.experiment.seed,
            independent=independent,
            shape=self.dataset.shape,
            rows=len(self.dataset.train),
            pool=self.inputs,
            autoencoder=self.autoencoder,
            about=about,
        )
