"""The single-step tables: closed forms, the published black box, and where the radii are the published ones."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.data import Examples
from vicinal.errors import InputError
from vicinal.evaluation import figures
from vicinal.evaluation.attacks import FGM, robustness
from vicinal.networks import Classifier, Normalise
from vicinal.studies import Subject
from vicinal.studies.fgm import PUBLISHED, SingleStep

RADII = (0.0, 0.1, 0.4, 1.0)


def linear(weight: list[list[float]], std: tuple[float, float], bias: tuple[float, float] = (0.1, 0.0)) -> Classifier:
    """A linear network for the plane, behind a preprocessing that stretches it."""
    head = nn.Linear(2, 2)
    head.weight.data, head.bias.data = torch.tensor(weight), torch.tensor(bias)
    return Classifier(
        Normalise([0.2, -0.1], list(std), image=False), nn.Identity(), head, feature_dim=2, classes=2
    ).eval()


def signed_distances(network: Classifier, z: Tensor, y: Tensor) -> Tensor:
    """How far points of the input space lie on the right side of a linear network's boundary, (n,)."""
    w = network.head.weight[1] - network.head.weight[0]
    margin = z @ w + network.head.bias[1] - network.head.bias[0]
    return ((2 * y - 1) * margin / w.norm()).detach()


def share(wrong: Tensor) -> float:
    return float(wrong.double().mean())


@pytest.fixture(scope="module")
def line(plane: Subject) -> Subject:
    return dataclasses.replace(plane, network=linear([[0.0, 0.0], [1.0, 1.0]], (0.5, 2.0)), preprocess="normalise")


def test_linear_networks_have_the_closed_form(line: Subject) -> None:
    """A point is lost when it is nearer to the boundary than epsilon, in the preprocessed input and not in the data."""
    (x, y), network = line.batches()[0], line.network
    found = SingleStep(epsilons=RADII)(line, 0)
    distance = signed_distances(network, network.preprocess(x), y)  # type: ignore[arg-type, operator]
    assert found["white"] == [share(distance < epsilon) for epsilon in RADII]
    assert (found["space"], found["preprocess"], found["n"]) == ("input", "normalise", len(y))
    in_data_space = robustness(network, [(x, y)], FGM(epsilon=0, bounds=None), epsilons=RADII, seed=0)
    assert found["white"] != list(in_data_space.errors.values())


def test_radius_0_is_the_clean_error(images: Subject) -> None:
    found = SingleStep(epsilons=RADII)(images, 0)
    assert found["white"][0] == found["clean_error"] == figures(images.network, images.batches()).error
    assert found["white"][-1] > found["clean_error"]
    assert SingleStep(n=13)(images, 0)["n"] == 13
    assert found["n"] == images.count()


def test_a_black_box_by_the_target_itself_is_a_white_box(images: Subject) -> None:
    own = SingleStep(epsilons=RADII)(dataclasses.replace(images, source=images.network, source_name="itself"), 0)
    assert own["black"] == own["white"]
    assert (own["source"], own["why_not"]) == ("itself", None)
    source = copy.deepcopy(images.network)
    source.body[1].weight.data *= torch.linspace(0, 2, 16)[:, None]  # type: ignore[index, union-attr, operator]
    foreign = SingleStep(epsilons=RADII)(dataclasses.replace(images, source=source), 0)
    assert foreign["white"] == own["white"] != foreign["black"]
    assert foreign["source"] == "another network"


def test_a_black_box_preprocesses_by_the_source(line: Subject) -> None:
    """Its preprocessing and its gradient, fed straight into the target; by the target's preprocessing it is another."""
    source = linear([[0.0, 0.0], [2.0, -1.0]], (1.5, 0.7))
    found = SingleStep(epsilons=RADII)(dataclasses.replace(line, source=source), 0)
    x, y = line.batches()[0]

    def errors(preprocess: Any) -> list[float]:
        z = preprocess(x)
        g = F.normalize(source.head.weight[1] - source.head.weight[0], dim=0) * (1 - 2 * y).unsqueeze(1)
        return [
            share(signed_distances(line.network, z + epsilon * g, y) < 0)  # type: ignore[arg-type]
            for epsilon in RADII
        ]

    assert found["black"] == errors(source.preprocess)
    assert found["black"] != errors(line.network.preprocess)
    assert found["black"][0] != found["clean_error"]  # the target never saw inputs of that scale


def test_a_source_that_preprocesses_in_another_way_is_told(line: Subject) -> None:
    """By its name, and in a line that says what does not compare; told by what it does, whatever the names are."""
    study = SingleStep(epsilons=RADII)
    for std, name, differs in (((1.5, 0.7), "zca", True), ((1.5, 0.7), "normalise", True), ((0.5, 2.0), "zca", False)):
        source = linear([[0.0, 0.0], [2.0, 1.0]], std)
        found = study(dataclasses.replace(line, source=source, source_preprocess=name), 0)
        assert found["source_preprocess"] == name
        assert (found["black"][0] != found["clean_error"]) <= differs
        assert (found["note"] is not None) is differs
        if differs:
            assert f"in another way ({name}) than this one (normalise)" in found["note"]
            assert "not comparable" in found["note"]
            assert "\n" not in found["note"]
    without = study(dataclasses.replace(line, source_preprocess="zca"), 0)
    assert (without["source_preprocess"], without["note"]) == (None, None)
    foreign = dataclasses.replace(line, network=nn.Sequential(line.network), source=source, source_preprocess="zca")
    found = study(foreign, 0)  # in data space both start from the same inputs
    assert (found["source_preprocess"], found["note"], found["why_not"]) == (None, None, None)


def test_a_network_without_preprocessing_is_attacked_in_pixels_and_not_clipped(images: Subject) -> None:
    """Class 1 wherever the first pixel is above -0.2, which is everywhere among images."""
    head = nn.Linear(36, 3)
    head.weight.data, head.bias.data = torch.zeros(3, 36), torch.tensor([0.0, 0.2, -100.0])
    head.weight.data[1, 0] = 1.0
    subject = dataclasses.replace(images, network=nn.Sequential(nn.Flatten(), head).eval())
    found = SingleStep(epsilons=(0.5, 3.0))(subject, 0)
    assert (found["space"], found["preprocess"], found["published"]) == ("pixels", None, False)
    x, y = images.batches()[0]
    others = y != 1
    assert found["white"] == [share(others | (x[:, 0, 0, 0] + 0.2 < epsilon)) for epsilon in (0.5, 3.0)]
    clipped = robustness(subject.network, [(x, y)], FGM(epsilon=0), epsilons=(0.5, 3.0), seed=0)
    assert list(clipped.errors.values()) == [share(others)] * 2


@pytest.mark.parametrize("kind", ["no Classifier", "other shape", "other classes", "none"])
def test_without_a_fitting_source_there_is_no_black_box(kind: str, images: Subject) -> None:
    other_shape = copy.deepcopy(images.network)
    other_shape.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
    other_classes = copy.deepcopy(images.network)
    other_classes.head = nn.Linear(16, 10)
    source, reason = {
        "no Classifier": (nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), "no preprocessing layer"),
        "other shape": (other_shape, "does not take these inputs"),
        "other classes": (other_classes, "gives other classes"),
        "none": (None, "no other network was given"),
    }[kind]
    found = SingleStep(epsilons=RADII)(dataclasses.replace(images, source=source, source_name="it"), 0)
    assert (found["black"], found["source"]) == (None, None)
    assert reason in found["why_not"]


def named(subject: Subject, name: str, shape: tuple[int, ...], preprocess: str | None) -> Subject:
    dataset = dataclasses.replace(subject.dataset, name=name, shape=shape)
    return dataclasses.replace(subject, dataset=dataset, preprocess=preprocess)


@pytest.mark.parametrize(
    ("name", "shape", "preprocess", "published"),
    [
        ("cifar10", (3, 32, 32), "zca_ict", "cifar10"),
        ("cifar10", (3, 32, 32), "zca_vat", "cifar10"),
        ("cifar10-mine", (3, 32, 32), "zca_ict", "cifar10"),
        ("svhn", (3, 32, 32), "minus_one_to_one", "svhn"),
        ("cifar10", (3, 32, 32), "normalise", None),
        ("cifar10", (3, 32, 32), "zca_mean_teacher", None),
        ("cifar10", (3, 32, 32), "minus_one_to_one", None),
        ("cifar10", (3, 16, 16), "zca_ict", None),
        ("cifar100", (3, 32, 32), "zca_ict", None),
        ("svhn", (3, 32, 32), "zca_ict", None),
        ("digits", (1, 8, 8), "minus_one_to_one", None),
    ],
)
def test_radii_are_published_where_data_and_space_are(
    name: str, shape: Any, preprocess: str, published: str | None, images: Subject
) -> None:
    subject = named(images, name, shape, preprocess)
    radii, is_published = SingleStep().radii(subject)
    assert is_published is (published is not None)
    if published:
        assert radii == PUBLISHED[published].epsilons
        assert SingleStep(epsilons=radii).radii(subject) == (radii, True)
    assert SingleStep(epsilons=(0.1, 0.7)).radii(subject) == ((0.1, 0.7), False)
    foreign = dataclasses.replace(subject, network=nn.Flatten())
    assert SingleStep().radii(foreign)[1] is False  # in pixels they would mean another thing


@pytest.mark.parametrize(
    ("shape", "preprocess", "radii"),
    [
        ((3, 32, 32), "normalise", (1.0, 2.0, 3.0, 5.0, 8.0)),
        ((3, 64, 64), "per_image", (2.0, 4.0, 6.0, 10.0, 16.0)),
        ((1, 8, 8), "normalise", (0.14, 0.29, 0.43, 0.72, 1.2)),
        ((3, 32, 32), "minus_one_to_one", (0.38, 0.75, 1.1, 1.9, 3.0)),
        ((3, 32, 32), "none", (0.19, 0.38, 0.56, 0.94, 1.5)),
        ((3, 32, 32), None, (0.19, 0.38, 0.56, 0.94, 1.5)),
    ],
)
def test_our_radii(shape: Any, preprocess: str | None, radii: Any, images: Subject) -> None:
    assert SingleStep().radii(named(images, "made", shape, preprocess)) == (radii, False)


def test_our_radii_of_vectors(vectors: Subject) -> None:
    whitened = SingleStep().radii(named(vectors, "made", (4,), "zca"))[0]
    assert whitened == (0.036, 0.072, 0.11, 0.18, 0.29)
    plain = torch.tensor(SingleStep().radii(vectors)[0])
    torch.testing.assert_close(plain, vectors.scale * torch.tensor(whitened), rtol=0.05, atol=0)
    twice = torch.tensor(SingleStep().radii(named(vectors, "made", (4,), "minus_one_to_one"))[0])
    torch.testing.assert_close(twice, 2 * plain, rtol=0.05, atol=0)


def test_what_it_gives_is_plain(images: Subject) -> None:
    found = SingleStep(n=20)(dataclasses.replace(images, source=images.network), 0)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert SingleStep(n=20)(dataclasses.replace(images, source=images.network), 1) == found  # nothing is drawn


def test_the_published_table_is_whole() -> None:
    for table in PUBLISHED.values():
        assert list(table.white) == list(table.black) == ["Supervised", "ICT", "AdvMixup"]
        for box in (table.white, table.black):
            assert all(len(row) == len(table.epsilons) and list(row) == sorted(row) for row in box.values())
            assert all(a > b > c for a, b, c in zip(*box.values(), strict=True))
        assert all(b < w for name in table.white for b, w in zip(table.black[name], table.white[name], strict=True))
        assert table.provenance == "slides of the paper"
    sums = {name: round(sum(map(sum, (*t.white.values(), *t.black.values()))), 2) for name, t in PUBLISHED.items()}
    assert sums == {"cifar10": 1338.08, "svhn": 1001.66}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"epsilons": ()}, "epsilons: expected radii that grow"),
        ({"epsilons": (2.0, 1.0)}, "epsilons: expected radii that grow"),
    ],
)
def test_settings_out_of_range_are_one_clear_line(settings: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        SingleStep(**settings)
    assert message in str(error.value)


def test_the_published_numbers_stand_beside_where_they_are_for_these_data(images: Subject) -> None:
    rows = torch.arange(6)
    dataset = dataclasses.replace(
        images.dataset, name="cifar10", shape=(3, 32, 32), test=Examples(torch.rand(6, 3, 32, 32), rows % 3)
    )
    network = Classifier(nn.Identity(), nn.Flatten(), nn.Linear(3072, 3), feature_dim=3072, classes=3)
    subject = dataclasses.replace(images, network=network, dataset=dataset, preprocess="zca_ict")
    found = SingleStep()(subject, 0)["published_table"]
    assert found["white"]["AdvMixup"] == [0.174, 0.3091, 0.4252, 0.5859, 0.7082]
    assert found["black"]["Supervised"] == [0.2925, 0.3938, 0.4883, 0.6306, 0.7575]
    assert found["epsilons"] == [1.0, 2.0, 3.0, 5.0, 8.0]
    assert SingleStep(epsilons=(1.5,))(subject, 0)["published_table"] is None
    assert SingleStep()(images, 0)["published_table"] is None
