"""`VicinalClassifier`: scikit-learn's conventions over the same core as the command line's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import Tensor

from vicinal.data import Dataset, from_arrays
from vicinal.data.arrays import as_inputs
from vicinal.errors import InputError
from vicinal.estimator.defaults import Facts, chosen, from_plain
from vicinal.estimator.labels import read_labels
from vicinal.estimator.scoring import labelled_part
from vicinal.estimator.training import described, logits_of, trained, with_weights
from vicinal.experiment import Experiment, merge
from vicinal.networks import Classifier
from vicinal.settings import shortened

_OWN = {"seed": "random_state", "recipe": "the settings themselves"}


class VicinalClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier for few labels, and any number of unlabelled examples, in scikit-learn's conventions.

    Settings that are left at ``"auto"`` are chosen from the data: `vicinal.estimator.defaults` says how, ``verbose=1``
    prints them, and `experiment_` holds all of them after the fit.

    Args:
        method: a name of `vicinal.methods.METHODS`, or a mapping with a ``name`` and the method's settings. "auto":
            ``vat`` where some examples are unlabelled, else ``supervised``. Radii that are not given are scaled to
            the data, see `vicinal.estimator.neighbourhood_radius`.
        network: a name of `vicinal.networks.NETWORKS` or an import path, or a mapping with a ``name`` and settings.
            "auto": ``mlp`` with layer norm for feature vectors, ``small_cnn`` for images.
        steps: optimiser steps. "auto": by the square root of the number of examples.
        learning_rate: at the start of the schedule. "auto": by the network.
        validation_fraction: share of the labelled examples, in [0,1), that is held out to select the weights of the
            lowest validation error among ten. "auto": 0.1 of 1000 labelled examples or more, else none: of few labels
            every one is worth more in training.
        preprocess: preprocessing layer, see `vicinal.networks.fit_preprocess`. Feature vectors are standardised before
            it in float64, unless it is "none".
        class_weight: None, "balanced", or weights by class. The labelled batches are drawn in proportion to them, so
            probabilities are those of the weighted classes.
        experiment: everything else, and what overrides all of the above: nested settings as in an experiment's YAML,
            such as ``{"method": {"epsilon": 2.0}, "augment": {"flip": True}, "training": {"batch_labelled": 32}}``.
        device: "cpu", "cuda", "mps", or "auto": the CPU for feature vectors, the best there is for images.
        random_state: a whole number makes fit deterministic: on one machine's CPU, to the bit.
        warm_start: go on from the weights of the last fit, with its standardisation and preprocessing; classes and
            shapes must be the same.
        verbose: 1 prints the settings and shows progress.

    Attributes:
        classes_: the classes, sorted, (K,).
        n_features_in_: number of features; of images the length of their first axis.
        feature_names_in_: names of the features, where X was a data frame.
        experiment_: the complete `Experiment` that was trained.
        network_: the trained network, from (standardised) inputs to logits, on the CPU.
        scaler_: the `StandardScaler` of feature vectors, or None.
        shape_: shape of one example as the network takes it, (D,) or (C, H, W).

    >>> from sklearn.datasets import make_blobs
    >>> X, y = make_blobs(60, centers=2, random_state=0)
    >>> y[6:] = -1  # six labels; the rest is used without
    >>> VicinalClassifier(random_state=0).fit(X, y).predict(X[:6]).tolist() == y[:6].tolist()
    True
    """

    classes_: NDArray[Any]
    shape_: tuple[int, ...]
    scaler_: StandardScaler | None
    experiment_: Experiment
    network_: Classifier

    def __init__(
        self,
        method: str | Mapping[str, Any] = "auto",
        network: str | Mapping[str, Any] = "auto",
        *,
        steps: int | Literal["auto"] = "auto",
        learning_rate: float | Literal["auto"] = "auto",
        validation_fraction: float | Literal["auto"] = "auto",
        preprocess: str = "normalise",
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        experiment: Mapping[str, Any] | None = None,
        device: str = "auto",
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.method = method
        self.network = network
        self.steps = steps
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.preprocess = preprocess
        self.class_weight = class_weight
        self.experiment = experiment
        self.device = device
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Train.

        Args:
            X: feature vectors (n, d), any finite numbers; or images (n, H, W), (n, H, W, C) or (n, C, H, W) with 1 or
                3 channels, uint8 or float in [0,1].
            y: classes (n,): whole numbers or texts. -1, or among floats and objects NaN or None, is unlabelled; for
                scikit-learn's folds it has to be -1.

        Raises:
            InputError: a `ValueError` that says what is wrong and what to do.
        """
        again = self.warm_start and hasattr(self, "network_")
        asked = self._asked()
        X = validate_data(self, X, reset=not again, allow_nd=True)
        labels = read_labels(y)
        check_consistent_length(X, labels.codes)
        if again and not np.array_equal(labels.classes, self.classes_):
            raise InputError(
                f"warm_start: the last fit had the classes {self.classes_.tolist()}, y has {labels.classes.tolist()}; "
                "set warm_start to False"
            )
        seed = self._seed()
        scaler = self.scaler_ if again else self._scaler(X)
        dataset = self._dataset(_scaled(scaler, X), labels.codes, labels.classes, asked)
        if again and dataset.shape != self.shape_:
            raise InputError(f"warm_start: the last fit had examples of shape {self.shape_}, X has {dataset.shape}")
        facts = Facts.of(dataset)
        selects = None if self.validation_fraction == "auto" else self.validation_fraction
        experiment = chosen(facts, {**asked, "seed": seed}, selects=selects)
        if self.verbose:
            about = (
                f"{facts.rows} examples of shape {facts.shape}, {facts.labelled} labelled, {facts.classes} classes",
                f"radius of a neighbourhood {facts.radius:.4g} (in pixels, or in standardised features)",
            )
            print(described(experiment, about), flush=True)
        weights = None
        if self.class_weight is not None:
            known = labels.classes[labels.codes[labels.codes >= 0]]
            weights = compute_class_weight(self.class_weight, classes=labels.classes, y=known)
        network = trained(
            experiment,
            dataset,
            weights=weights,
            start=self.network_ if again else None,
            progress=bool(self.verbose),
        )
        self.classes_, self.shape_, self.scaler_ = labels.classes, dataset.shape, scaler
        self.experiment_, self.network_ = experiment, network
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each example, (n,)."""
        best = self._logits(X).argmax(axis=1)
        return cast("NDArray[Any]", self.classes_[best])

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities (n, K) in the order of `classes_`."""
        logits = torch.from_numpy(self._logits(X))
        return cast("NDArray[np.float64]", logits.softmax(dim=1).numpy())

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Logits (n, K); for two classes their difference (n,), greater than 0 where the second is more probable."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on the examples that have a label, so that folds of partly labelled data can be scored.

        Raises:
            InputError: none has one.
        """
        X, y, sample_weight = labelled_part(X, y, sample_weight)
        return float(super().score(X, y, sample_weight))

    def _asked(self) -> dict[str, Any]:
        """What the arguments ask for, as nested settings; ``experiment`` wins."""
        over = {} if self.experiment is None else self.experiment
        if not isinstance(over, Mapping):
            raise InputError(
                f"experiment: expected nested settings, such as {{'method': 'ict'}}, got {shortened(over)}"
            )
        for key, instead in _OWN.items():
            if key in over:
                raise InputError(f"experiment: {key} cannot be set here; use {instead}")
        data = over.get("data", {})
        if not isinstance(data, Mapping) or data.keys() - {"layout"}:
            raise InputError(f"experiment: data: X and y are the data, and only their layout can be set; got {data!r}")
        training = {"steps": self.steps, "learning_rate": self.learning_rate, "device": self.device}
        asked = {
            "method": self.method,
            "network": self.network,
            "preprocess": self.preprocess,
            "training": {key: value for key, value in training.items() if value != "auto"},
        }
        return merge({key: value for key, value in asked.items() if value != "auto"}, over)

    def _seed(self) -> int:
        if isinstance(self.random_state, (int, np.integer)) and not isinstance(self.random_state, bool):
            if self.random_state < 0:
                raise InputError(f"random_state: expected a whole number of at least 0, got {self.random_state}")
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _scaler(self, X: NDArray[Any]) -> StandardScaler | None:
        """Standardisation of feature vectors, in float64: what a float32 network would round away stays."""
        if X.ndim > 2 or self._asked().get("preprocess") == "none":
            return None
        return StandardScaler().fit(X)

    def _dataset(
        self, X: NDArray[Any], codes: NDArray[np.int64], classes: NDArray[Any], asked: Mapping[str, Any]
    ) -> Dataset:
        layout = asked.get("data", {}).get("layout", "auto")
        try:
            return from_arrays(X, codes, layout=layout, classes=[str(name) for name in classes])
        except InputError as error:
            hint = "; for example experiment={'data': {'layout': 'NHWC'}}" if "layout" in str(error) else ""
            raise InputError(f"{error}{hint}") from error

    def _logits(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, allow_nd=True)
        return logits_of(self.network_, self._inputs(_scaled(self.scaler_, X)), self.experiment_)

    def _inputs(self, X: NDArray[Any]) -> Tensor:
        """Examples as the network takes them: (n, D) or (n, C, H, W)."""
        shape = self.shape_
        if len(shape) == 1 and X.ndim == 2:
            return torch.tensor(X)  # a copy: arrays that other processes share cannot be written
        orders: dict[tuple[int, ...], Literal["NHWC", "NCHW"]] = {}
        if len(shape) == 3:
            orders = {(*shape[1:], shape[0]): "NHWC", shape: "NCHW"}
            if shape[0] == 1 and X.shape[1:] == shape[1:]:
                return as_inputs("X", X, "auto")
        if X.shape[1:] not in orders:
            raise InputError(f"X: examples have shape {X.shape[1:]}, and those of fit had {shape}")
        return as_inputs("X", X, orders[X.shape[1:]])

    def __getstate__(self) -> dict[str, Any]:
        """Plain values and arrays alone, so that loading needs no trust in more than this class."""
        state = dict(super().__getstate__())
        if "network_" in state:
            state["network_"] = {name: tensor.numpy() for name, tensor in self.network_.state_dict().items()}
            state["experiment_"] = self.experiment_.as_dict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "network_" in state:
            experiment: Experiment = from_plain(state["experiment_"])
            weights = {name: torch.tensor(array) for name, array in state["network_"].items()}
            state["experiment_"] = experiment
            state["network_"] = with_weights(experiment, tuple(state["shape_"]), len(state["classes_"]), weights)
        super().__setstate__(state)


def _scaled(scaler: StandardScaler | None, X: NDArray[Any]) -> NDArray[Any]:
    """Feature vectors as floating-point numbers, since bytes count as pixels further on; images as they are."""
    if scaler is not None:
        return cast("NDArray[Any]", scaler.transform(X))
    return X.astype(np.float64) if X.ndim == 2 and X.dtype.kind != "f" else X
