"""Settings that are chosen from the data: method, network, radii, batches and steps.

Every choice is ours. The constants were found on scikit-learn's digits and breast cancer and on PneumoniaMNIST's
validation part, with 5 labels per class, by accuracy and Brier score on splits (seeds from 100) that no table of
results uses. VAT was taken because it was good on all of them, in both figures, with the same settings; methods that
mix were no better on feature vectors, and their probabilities worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from vicinal.data import Dataset, Rows, as_float
from vicinal.errors import InputError
from vicinal.experiment import Experiment, merge, method_class
from vicinal.methods import Method
from vicinal.randomness import generator
from vicinal.settings import Choice, settings_of

NEAREST = 0.35
"""Radius of a neighbourhood, as a share of the median distance to the nearest neighbour.

Below one half, so that the balls around two examples at that distance do not meet. Shares from 0.3 to 0.4 were as good
as each other, 0.15 gained less; at 1, where a ball reaches the next example, accuracy fell by 4 to 7 points.
"""
EXTENT = 0.15
"""The least radius, as a share of the root mean square distance to the mean.

In few dimensions many examples lie as densely as one likes, and a ball that shrinks with their distance would say
nothing about the classes: of 1000 points in two half moons, the other share is a fifteenth of this one. From about ten
features on it is the larger one.
"""

_QUERIES, _OTHERS, _NUMBERS = 1000, 10_000, 20_000_000
# Methods whose two branches differ by noise alone: without augmentation there must be some on the input.
_NOISY = (
    "pi_model",
    "temporal_ensembling",
    "mean_teacher",
    "mean_teacher_fast_swa",
    "pi_sntg",
    "temporal_ensembling_sntg",
    "mean_teacher_sntg",
)
_ENOUGH_TO_SELECT = 1000
_VALIDATION = 0.1


@dataclass(frozen=True)
class Facts:
    """What the defaults are chosen from.

    Args:
        shape: shape of one example, (D,) or (C, H, W).
        classes: number of classes.
        rows: training examples, unlabelled ones too.
        labelled: those that have a label.
        radius: Euclidean radius of a neighbourhood, see `neighbourhood_radius`.
    """

    shape: tuple[int, ...]
    classes: int
    rows: int
    labelled: int
    radius: float

    @classmethod
    def of(cls, dataset: Dataset) -> Facts:
        """The facts of a data set's training part."""
        y = dataset.train.y
        radius = neighbourhood_radius(dataset.train.x)
        return cls(dataset.shape, len(dataset.classes), len(y), int((y >= 0).sum()), radius)

    @property
    def is_images(self) -> bool:
        """Whether the examples are images."""
        return len(self.shape) == 3

    @property
    def spread(self) -> float:
        """What each number moves by, root mean square, at that radius."""
        return self.radius / math.sqrt(math.prod(self.shape))


def neighbourhood_radius(x: Rows) -> float:
    """How far a prediction is asked to stay the same around an example: the scale of what is chosen from the data.

    The larger of `NEAREST` of the median distance to the nearest neighbour and `EXTENT` of the root mean square
    distance to the mean. Multiplying the data by a number multiplies it by the same.

    Args:
        x: inputs (n, ...): images in [0,1] or 0..255, or feature vectors, standardised if their units differ.

    Returns:
        A Euclidean length; 0 if all examples are equal.
    """
    rows = _sample(x)
    return max(NEAREST * _nearest(rows), EXTENT * float(rows.square().sum(dim=1).mean().sqrt()))


def neighbour_distance(x: Rows) -> float:
    """Median Euclidean distance from an example to its nearest different neighbour, in the units of ``x``.

    Copies of an example count as the example itself. Measured from 1000 rows, drawn without regard to labels, to at
    most 10 000.

    Args:
        x: as for `neighbourhood_radius`.

    Returns:
        The distance; 0 if all examples are equal.

    >>> neighbour_distance(torch.tensor([[0.0], [0.0], [3.0], [5.0]]))
    2.0
    """
    return _nearest(_sample(x))


def _sample(x: Rows) -> Tensor:
    """Rows in an order without meaning, centred, float64 (m, D)."""
    order = torch.randperm(len(x), generator=generator(0, "neighbour distance"))
    numbers = x[order[:1]].numel()
    rows = as_float(x[order[: min(_OTHERS, max(_QUERIES, _NUMBERS // numbers))]]).flatten(1).double()
    return rows - rows.mean(dim=0)


def _nearest(rows: Tensor) -> float:
    distances = torch.cdist(rows[:_QUERIES], rows)
    # What rounding leaves between two copies.
    copies = distances <= 1e-6 * rows.norm(dim=1).max()
    nearest = distances.masked_fill(copies, math.inf).min(dim=1).values
    nearest = nearest[nearest.isfinite()]
    return float(nearest.median()) if len(nearest) else 0.0


def chosen(facts: Facts, asked: Mapping[str, Any], *, selects: float | None = None) -> Experiment:
    """The complete experiment: what was asked for, and defaults chosen from the data for the rest.

    Args:
        facts: of the data.
        asked: nested settings, as in an experiment's YAML. ``method`` or ``network`` may be ``"auto"`` or left out.
        selects: validation share of the labelled examples; None chooses it.

    Raises:
        InputError: an unknown key, a wrong value, or a method that an array alone cannot feed.
    """
    given = {key: value for key, value in asked.items() if value != "auto"}
    name = _name(given.get("method")) or ("vat" if facts.labelled < facts.rows else "supervised")
    method = method_class(name)
    if method.needs.autoencoder or method.trains == "autoencoder":
        raise InputError(
            f"method: {name} takes an autoencoder that is trained first: use the command line, vicinal fit"
        )
    # What a method starts from of its own accord (another optimiser, say) belongs together: it stays.
    steps = given.get("training", {}).get("steps")
    values = merge(
        merge(_training(facts, steps), {"method": {"name": name, **_radii(facts, method)}}), method.experiment
    )
    if "network" not in method.experiment:
        values["network"] = _network(facts, name)
    if selects is None:
        selects = _VALIDATION if facts.labelled >= _ENOUGH_TO_SELECT else 0.0
    if not isinstance(selects, Real):
        raise InputError(f"validation_fraction: expected a share in [0, 1) or 'auto', got {selects!r}")
    values["split"] = {"validation": float(selects)}
    return from_plain(merge(values, given))


def from_plain(values: Mapping[str, Any]) -> Experiment:
    """An experiment on arrays in memory, from nested plain values.

    `Experiment.of` asks for data that can be found by name, and arrays cannot: their place is held by another source
    while everything else is read and checked.
    """
    data = Choice.of("data", {**values.get("data", {}), "name": "arrays"})
    experiment = Experiment.of({**values, "data": "two_moons", "recipe": "none"})
    return replace(experiment, data=data)


def _name(choice: Any) -> str | None:
    if isinstance(choice, Mapping) and "name" not in choice:
        return None
    return None if choice is None else Choice.of("method", choice).name


def _radii(facts: Facts, method: type[Method]) -> dict[str, Any]:
    """Settings of a method that are lengths in the space of the data."""
    known = {setting.name for setting in settings_of(method)}
    if {"epsilon_min", "epsilon_max", "xi", "space"} <= known:
        # In the proportion that the digits' recipe has them in.
        reach = 9 * facts.radius or 1.0
        return {"epsilon_min": 0.3 * facts.radius, "epsilon_max": reach, "xi": reach, "space": "pixels"}
    if {"epsilon", "space"} <= known:
        return {"epsilon": facts.radius, "space": "pixels"}
    return {"epsilon": facts.spread} if "epsilon" in known else {}  # a box's half side


def _network(facts: Facts, method: str) -> dict[str, Any]:
    if facts.is_images:
        side = min(facts.shape[1:])
        widths = (16, 32, 64) if side < 32 else (32, 64, 128)
        return {"name": "small_cnn", "widths": list(widths[: 1 + max(0, min(2, int(math.log2(side))))])}
    # Layer norm keeps activations in bounds away from the examples, where few labels leave the network free.
    width = 64 if facts.classes <= 32 else 128
    noise = facts.spread if method in _NOISY else 0.0
    return {"name": "mlp", "hidden": [width, width], "norm": "layer", "input_noise": noise}


def _training(facts: Facts, steps: Any) -> dict[str, Any]:
    """Optimiser, batches and augmentation.

    Args:
        facts: of the data.
        steps: number of steps if it was asked for; a value that is none is told so where it is read.
    """
    root = math.sqrt(facts.rows)
    training: dict[str, Any]
    if facts.is_images:
        training = {
            "steps": 10 * round(min(max(20 * root, 400), 6000) / 10),
            "batch_unlabelled": 50,
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "weight_decay": 5e-3,
        }
    else:
        training = {
            # Labels spread over the unlabelled examples little by little: that takes longer than to fit them.
            "steps": 10 * round(min(max((30 if facts.labelled < facts.rows else 15) * root, 200), 3000) / 10),
            "batch_unlabelled": 128,
            "optimizer": "adam",
            "learning_rate": 3e-3,
            "weight_decay": 3e-3,
            # A network this small is fastest on one core, and on no GPU.
            "device": "cpu",
            "threads": 1,
        }
    training["batch_labelled"] = min(facts.labelled, 64 if facts.labelled < 5000 else 256)
    training["validate_every"] = max((steps if isinstance(steps, int) else training["steps"]) // 10, 1)
    training["log_every"] = 20
    values = {"teacher": {"decay": 0.99}, "averaging": {"decay": 0.99}, "training": training}
    crop = round(min(facts.shape[1:]) / 16) if facts.is_images else 0
    return {**values, "augment": {"crop": crop}} if crop else values
