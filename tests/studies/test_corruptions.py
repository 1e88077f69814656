"""Errors on corrupted images of a subject: made here and read from files, means, and what is left out and said."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vicinal.data import Examples
from vicinal.errors import InputError
from vicinal.evaluation import CORRUPTIONS, EXTRA_CORRUPTIONS, figures
from vicinal.evaluation.measures import Corruptions
from vicinal.settings import build
from vicinal.studies import Subject
from vicinal.studies.corruptions import CorruptionErrors

N = 40


@pytest.fixture(scope="module")
def subject(images: Subject) -> Subject:
    """Images (3, 8, 8) in three classes, told apart by a linear network."""
    draws = torch.Generator().manual_seed(0)
    y = torch.randint(3, (N,), generator=draws)
    x = torch.rand(N, 3, 8, 8, generator=draws) * 0.9 + 0.06 * torch.eye(3)[y][:, :, None, None]
    x = (255 * x).round().to(torch.uint8)
    dataset = dataclasses.replace(images.dataset, test=Examples(x, y), shape=(3, 8, 8))
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return dataclasses.replace(images, network=network, dataset=dataset)


KINDS = ("impulse_noise", "contrast", "snow")


def check_made(subject: Subject) -> None:
    study = CorruptionErrors(n=30, kinds=KINDS, severities=(1, 4))
    found = study(subject, 5)
    batch = subject.batches(30)
    main = Corruptions(kinds=KINDS, severities=(1, 4))(subject.network, batch, 5)
    beside = Corruptions(kinds=EXTRA_CORRUPTIONS, severities=(1, 4))(subject.network, batch, 5)
    assert found == {
        "n": 30,
        "origin": "made with seed 5",
        "kinds": list(KINDS),
        "extra": list(EXTRA_CORRUPTIONS),
        "severities": [1, 4],
        "errors": {kind: list(each) for kind, each in {**main.errors, **beside.errors}.items()},
        "mean": main.error,
        "mean_extra": beside.error,
        "clean_error": figures(subject.network, batch).error,
        "notes": [],
        "incomplete": False,
    }
    assert main.error != found["clean_error"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_they_are_those_of_the_measurement(subject: Subject) -> None:
    check_made(subject)


def test_another_number_of_examples_is_told_apart(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    again = Subject.again
    monkeypatch.setattr(Subject, "again", lambda self, n, size: again(self, 29, size))
    with pytest.raises(AssertionError):
        check_made(subject)


def test_by_default_all_kinds_at_all_severities(subject: Subject) -> None:
    found = CorruptionErrors()(subject, 0)
    assert (found["n"], tuple(found["kinds"]), tuple(found["extra"])) == (N, CORRUPTIONS, EXTRA_CORRUPTIONS)
    assert tuple(found["errors"]) == CORRUPTIONS + EXTRA_CORRUPTIONS
    assert found["mean"] == pytest.approx(np.mean([found["errors"][kind] for kind in CORRUPTIONS]))
    assert found["mean_extra"] == pytest.approx(np.mean([found["errors"][kind] for kind in EXTRA_CORRUPTIONS]))
    assert found["severities"] == [1, 2, 3, 4, 5]


def test_extra_kinds_can_be_left_out_or_counted(subject: Subject) -> None:
    without = CorruptionErrors(kinds=("fog",), extra=False)(subject, 0)
    assert (without["kinds"], without["extra"], without["mean_extra"]) == (["fog"], [], None)
    counted = CorruptionErrors(kinds=("fog", "spatter"), severities=(3,))(subject, 0)
    assert counted["kinds"] == ["fog", "spatter"]
    assert counted["extra"] == ["speckle_noise", "gaussian_blur", "saturate"]
    assert counted["mean"] == pytest.approx((counted["errors"]["fog"][0] + counted["errors"]["spatter"][0]) / 2)


def test_a_kind_that_needs_what_is_not_installed_is_left_out_and_named(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    found = CorruptionErrors(n=4, severities=(1,))(subject, 0)
    assert found["kinds"] == [kind for kind in CORRUPTIONS if kind != "jpeg_compression"]
    assert "jpeg_compression" not in found["errors"]
    assert found["incomplete"] is True
    (note,) = found["notes"]
    assert note.startswith("left out: jpeg_compression; jpeg_compression needs the package 'PIL.Image'")
    assert CorruptionErrors(n=4, kinds=("fog",), severities=(1,))(subject, 0)["incomplete"] is False
    with pytest.raises(InputError, match="no kind can be measured; left out: jpeg_compression"):
        CorruptionErrors(kinds=("jpeg_compression",))(subject, 0)


def test_what_it_does_not_apply_to(subject: Subject, images: Subject, vectors: Subject) -> None:
    study = CorruptionErrors()
    assert study.refusal(subject) is None
    assert study.refusal(vectors) == "these are feature vectors; corruptions are for images"
    refused = study.refusal(images)
    assert refused is not None
    assert "sides of at least 8 pixels" in refused
    assert CorruptionErrors(files="somewhere").refusal(images) is None
    assert CorruptionErrors(files="somewhere").refusal(vectors) is not None


# --- published files --------------------------------------------------------------------------------------------------


def shifted(subject: Subject, severity: int, kind: str = "fog") -> np.ndarray:
    """The test images as "published" at a severity: one channel fades."""
    x = subject.examples.x[torch.arange(N)].numpy().copy()
    x[:, ["fog", "saturate"].index(kind)] //= severity
    return x


@pytest.fixture
def arrays(subject: Subject, tmp_path: Path) -> Path:
    for kind in ("fog", "saturate"):
        values = [shifted(subject, severity, kind) for severity in range(1, 6)]
        np.save(tmp_path / f"{kind}.npy", np.concatenate(values).transpose(0, 2, 3, 1))
    np.save(tmp_path / "labels.npy", np.tile(subject.examples.y.numpy(), 5))
    return tmp_path


def error(subject: Subject, x: np.ndarray, rows: Any) -> float:
    batch = torch.from_numpy(x).float()[rows] / 255, subject.examples.y[rows]
    return figures(subject.network, [batch]).error


SPREAD = torch.arange(25) * N // 25
"""The rows of 25 of N examples, spread evenly."""


def check_arrays(subject: Subject, files: Path) -> None:
    found = CorruptionErrors(n=25, kinds=("fog", "frost"), severities=(5, 2), files=str(files))(subject, 0)
    assert (found["n"], found["origin"]) == (25, f"files in {files}")
    assert (found["kinds"], found["extra"]) == (["fog"], ["saturate"])
    expected = {
        kind: [error(subject, shifted(subject, severity, kind), SPREAD) for severity in (5, 2)]
        for kind in ("fog", "saturate")
    }
    assert found["errors"] == expected
    assert found["mean"] == pytest.approx(np.mean(expected["fog"]))
    assert found["mean_extra"] == pytest.approx(np.mean(expected["saturate"]))
    assert found["clean_error"] == error(subject, shifted(subject, 1), SPREAD) < found["mean"]
    assert found["incomplete"] is True
    left_out = ["frost", "speckle_noise", "gaussian_blur", "spatter"]
    assert found["notes"] == [f"left out: {kind}; there are no files of it" for kind in left_out]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_files_are_read(subject: Subject, arrays: Path) -> None:
    check_arrays(subject, arrays)


@pytest.mark.parametrize("axis", [0, 3])
def test_files_in_another_order_are_told_apart(axis: int, subject: Subject, arrays: Path) -> None:
    """Of rows, or of channels."""
    np.save(arrays / "fog.npy", np.flip(np.load(arrays / "fog.npy"), axis))
    with pytest.raises(AssertionError):
        check_arrays(subject, arrays)


def test_labels_in_another_order_are_said(subject: Subject, arrays: Path) -> None:
    order = torch.arange(N).flip(0)
    other = dataclasses.replace(subject.dataset, test=Examples(subject.examples.x[order], subject.examples.y[order]))
    found = CorruptionErrors(n=10, kinds=("fog",), extra=False, files=str(arrays))(
        dataclasses.replace(subject, dataset=other), 0
    )
    assert (found["n"], found["incomplete"]) == (10, False)
    assert found["errors"]["fog"] == [error(subject, shifted(subject, k), slice(0, N, 4)) for k in range(1, 6)]
    assert [note.split(":")[0] for note in found["notes"]] == [
        "the labels of the files are not those of the test part in its order",
        "the files name no classes",
    ]


@pytest.fixture
def folders(subject: Subject, tmp_path: Path) -> Path:
    """One kind as folders: two images of each class at each severity."""
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for severity in range(1, 6):
        for c, name in enumerate(subject.dataset.classes):
            for k, row in enumerate((subject.examples.y == c).nonzero()[:2, 0].tolist()):
                place = tmp_path / "fog" / str(severity) / name
                place.mkdir(parents=True, exist_ok=True)
                pil.fromarray(shifted(subject, severity)[row].transpose(1, 2, 0)).save(place / f"{k}.png")
    return tmp_path


def test_folders_are_read_in_the_networks_order_of_classes(subject: Subject, folders: Path) -> None:
    rows = torch.cat([(subject.examples.y == c).nonzero()[:2, 0] for c in range(3)])
    study = CorruptionErrors(kinds=("fog",), extra=False, files=str(folders))
    found = study(subject, 0)
    assert (found["n"], len(found["notes"])) == (6, 1)
    assert found["errors"]["fog"] == [error(subject, shifted(subject, k), rows) for k in range(1, 6)]
    assert found["mean"] < 0.5
    # One of each class, rather than the first.
    assert dataclasses.replace(study, n=3)(subject, 0)["errors"]["fog"] == [
        error(subject, shifted(subject, k), rows[::2]) for k in range(1, 6)
    ]
    renamed = dataclasses.replace(subject, dataset=dataclasses.replace(subject.dataset, classes=("b", "c", "a")))
    assert study(renamed, 0)["mean"] > 0.6


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda files: np.save(files / "labels.npy", np.full(5 * N, 3)), "label 3, but there are 3 classes"),
        (lambda files: (files / "labels.npy").unlink(), "there is no labels.npy"),
        (
            lambda files: np.save(files / "fog.npy", np.zeros((5 * N, 9, 8, 3), dtype=np.uint8)),
            r"images of fog are \(3, 9, 8\) \(C, H, W\), but those of the network are \(3, 8, 8\)",
        ),
        (lambda files: (files / "fog.npy").unlink(), "no kind can be measured; left out: fog; there are no files"),
    ],
)
def test_files_that_do_not_fit(spoil: Callable[[Path], None], message: str, subject: Subject, arrays: Path) -> None:
    spoil(arrays)
    with pytest.raises(InputError, match=message):
        CorruptionErrors(kinds=("fog",), extra=False, files=str(arrays))(subject, 0)


def test_folders_that_do_not_fit(subject: Subject, folders: Path) -> None:
    study = CorruptionErrors(kinds=("fog",), extra=False, files=str(folders))
    (folders / "fog" / "4" / "a" / "0.png").unlink()
    with pytest.raises(InputError, match="labels of fog at severity 4 are not those of fog at severity 1"):
        study(subject, 0)
    other = dataclasses.replace(subject, dataset=dataclasses.replace(subject.dataset, classes=("a", "b", "d")))
    with pytest.raises(InputError, match="none of the 3 classes"):
        study(other, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ["fgo"]}, "did you mean 'fog'"),
        ({"kinds": []}, "kinds: there are none"),
        ({"severities": [6]}, "severities must be at most 5"),
        ({"n": 0}, "n must be at least 1"),
    ],
)
def test_settings_are_checked(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build("corruptions", CorruptionErrors, settings)


def test_settings_are_read_like_those_of_all_studies() -> None:
    asked = {"n": "none", "kinds": "[fog, snow]", "extra": "false", "severities": "[1, 3]", "files": "CIFAR-10-C"}
    made = build("corruptions", CorruptionErrors, asked)
    assert made == CorruptionErrors(n=None, kinds=("fog", "snow"), extra=False, severities=(1, 3), files="CIFAR-10-C")
