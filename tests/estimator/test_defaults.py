"""What is chosen from the data, and what was asked for instead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from vicinal.errors import InputError
from vicinal.estimator import EXTENT, NEAREST, neighbour_distance, neighbourhood_radius
from vicinal.estimator.defaults import Facts, chosen, from_plain
from vicinal.methods import METHODS

FEW = Facts(shape=(16,), classes=3, rows=400, labelled=15, radius=2.0)
ALL = replace(FEW, labelled=400)
IMAGES = replace(FEW, shape=(1, 28, 28))


def reference(x: np.ndarray[Any, Any]) -> float:
    gaps = np.linalg.norm(x[:, None] - x[None], axis=-1)
    gaps[gaps < 1e-9] = np.inf
    return float(np.sort(gaps.min(axis=1))[(len(x) - 1) // 2])


@pytest.mark.parametrize("shape", [(40, 3), (41, 2, 4, 4)])
def test_the_distance_is_the_plain_one(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    assert neighbour_distance(x) == pytest.approx(reference(x.flatten(1).double().numpy()))


@pytest.mark.parametrize(("factor", "shift"), [(1e-4, 0.0), (1e3, 0.0), (1.0, 1e3)])
def test_the_distance_scales_with_the_data_and_nothing_else(factor: float, shift: float) -> None:
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    assert neighbour_distance(x * factor + shift) == pytest.approx(neighbour_distance(x) * factor, rel=1e-3)


def test_copies_are_no_neighbours() -> None:
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    assert neighbour_distance(x.repeat(3, 1)) == pytest.approx(neighbour_distance(x))
    assert neighbour_distance(torch.ones(5, 2)) == 0.0


def test_the_distance_of_bytes_is_that_of_the_images() -> None:
    x = torch.randint(256, (20, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert neighbour_distance(x) == pytest.approx(neighbour_distance(x / 255))


def test_many_rows_are_sampled_in_little_memory() -> None:
    x = torch.randn(30_000, 8, generator=torch.Generator().manual_seed(0))
    assert 0.5 < neighbour_distance(x) / neighbour_distance(x[:10_000]) < 1.5


def test_the_radius_is_the_larger_of_two_shares() -> None:
    draws = torch.Generator().manual_seed(0)
    dense, sparse = torch.randn(2000, 2, generator=draws), torch.randn(200, 40, generator=draws)
    assert neighbourhood_radius(dense) == pytest.approx(EXTENT * 2**0.5, rel=0.05)
    assert neighbourhood_radius(dense) > 5 * NEAREST * neighbour_distance(dense)
    assert neighbourhood_radius(sparse) == pytest.approx(NEAREST * neighbour_distance(sparse))
    assert neighbourhood_radius(3 * sparse + 1) == pytest.approx(3 * neighbourhood_radius(sparse), rel=1e-4)
    assert neighbourhood_radius(torch.ones(4, 2)) == 0.0


@pytest.mark.parametrize(
    ("facts", "method", "network"),
    [(FEW, "vat", "mlp"), (ALL, "supervised", "mlp"), (IMAGES, "vat", "small_cnn")],
)
def test_method_and_network_follow_the_data(facts: Facts, method: str, network: str) -> None:
    for asked in ({}, {"method": "auto", "network": "auto"}):
        experiment = chosen(facts, asked)
        assert (experiment.method.name, experiment.network.name) == (method, network)
    assert chosen(facts, {"method": "mixup"}).method.name == "mixup"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_can_be_asked_for_or_says_why_not(name: str) -> None:
    method = METHODS[name]
    if method.needs.autoencoder or method.trains == "autoencoder":
        with pytest.raises(InputError, match="autoencoder"):
            chosen(FEW, {"method": name})
        return
    made = chosen(IMAGES, {"method": name})
    assert made.method.name == name
    # What the method's authors set together stays together.
    for key, value in method.experiment.get("training", {}).items():
        assert getattr(made.training, key) == value
    assert chosen(FEW, {"method": name}).method.name == name


@pytest.mark.parametrize("name", ["vat", "vat_entmin", "vadd_vat", "cvt_vat", "advmixup", "mixup_lr", "pgd_training"])
def test_radii_scale_with_the_data(name: str) -> None:
    lengths = ("epsilon", "epsilon_min", "epsilon_max")
    near, far = (chosen(replace(FEW, radius=d), {"method": name}).method.settings for d in (2.0, 20.0))
    found = [key for key in lengths if key in near]
    assert found
    for key in found:
        assert far[key] == pytest.approx(10 * near[key])
    if "epsilon" in found and name != "pgd_training":
        assert near["epsilon"] == pytest.approx(2.0)
    if name == "pgd_training":  # a box, whose corner is as far as the ball reaches
        assert near["epsilon"] * 16**0.5 == pytest.approx(2.0)


def test_two_noisy_branches_get_noise() -> None:
    assert chosen(FEW, {"method": "mean_teacher"}).network.settings["input_noise"] == pytest.approx(2 / 4)
    assert chosen(FEW, {"method": "vat"}).network.settings["input_noise"] == 0.0


@pytest.mark.parametrize(
    ("labelled", "selects", "share"), [(15, None, 0.0), (1000, None, 0.1), (1000, 0, 0.0), (15, 0.2, 0.2)]
)
def test_labels_are_held_out_where_there_are_enough(labelled: int, selects: float | None, share: float) -> None:
    facts = replace(FEW, rows=5000, labelled=labelled)
    assert chosen(facts, {}, selects=selects).split.validation == share


def test_steps_grow_slower_than_the_data() -> None:
    steps = [chosen(replace(FEW, rows=rows), {}).training.steps for rows in (20, 400, 1600, 10**7)]
    assert steps == [200, 600, 1200, 3000]
    assert chosen(ALL, {}).training.steps == 300
    assert chosen(FEW, {"training": {"steps": 40}}).training.validate_every == 4


def test_what_is_asked_for_wins() -> None:
    asked = {
        "method": {"epsilon": 9.0},
        "network": {"hidden": [8]},
        "training": {"batch_labelled": 5, "steps": 7},
        "split": {"validation": 0.3},
    }
    made = chosen(FEW, asked, selects=0.1)
    assert made.method.name == "vat"
    assert made.method.settings["epsilon"] == 9.0
    assert made.network.settings["hidden"] == (8,)
    assert made.network.settings["norm"] == "layer"
    assert (made.training.batch_labelled, made.training.steps, made.split.validation) == (5, 7, 0.3)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"method": "vta"}, "did you mean 'vat'"),
        ({"method": {"epsilom": 1.0}}, "epsilon"),
        ({"networks": "mlp"}, "network"),
        ({"training": {"steps": "many"}}, "steps"),
        ({"training": {"steps": 0}}, "at least 1"),
    ],
)
def test_what_cannot_be_asked_for(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        chosen(FEW, asked)


def test_a_share_that_is_none() -> None:
    with pytest.raises(InputError, match="validation_fraction"):
        chosen(FEW, {}, selects="some")  # type: ignore[arg-type]


def test_an_experiment_on_arrays_comes_back_from_plain_values() -> None:
    made = chosen(FEW, {"data": {"layout": "NCHW"}, "seed": 3})
    assert from_plain(made.as_dict()) == made
    assert made.data.name == "arrays"
