"""Which labels next: uncertain examples, no two alike, none that is labelled, the same ones each time."""

from __future__ import annotations

import csv
import io
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vicinal import predicting, suggesting
from vicinal.data import SplitIndices, as_float, load
from vicinal.errors import InputError
from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.networks import Classifier
from vicinal.runs import Run
from vicinal.suggesting import diverse, suggest

TINY = {"steps": 60, "learning_rate": 0.1, "validate_every": 30, "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Run:
    experiment = Experiment.of(
        data="digits",
        method="supervised",
        labels=50,
        recipe="none",
        network={"name": "mlp", "hidden": [16]},
        training=TINY,
    )
    return fit(experiment, tmp_path_factory.mktemp("digits") / "run", progress=False)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Dark and bright pictures with labels, and grey ones in between without; one of these three times."""
    image: Any = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
    root = tmp_path_factory.mktemp("pictures")
    levels = {f"{name}/{k}.png": 20 * k + start for name, start in (("dark", 0), ("light", 200)) for k in range(3)}
    levels |= {
        f"unlabelled/{name}.png": level
        for name, level in {"a": 10, "b": 120, "copy 1": 128, "copy 2": 128, "copy 3": 128, "é": 140, "z": 250}.items()
    }
    for name, level in levels.items():
        (root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        image.new("L", (4, 4), level).save(root / "data" / name)
    experiment = Experiment.of(
        data=str(root / "data"),
        method="supervised",
        network={"name": "mlp", "hidden": [8]},
        split={"validation": 0},
        training={**TINY, "batch_labelled": 6},
    )
    return fit(experiment, root / "run", progress=False)


def probabilities(run: Run, rows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return run.network().network(as_float(load(run.experiment.data).train.x[rows])).double().softmax(dim=1)


def by_hand(run: Run, n: int, score: str, candidates: int = suggesting.CANDIDATES) -> list[int]:
    """The rule as the module says it, one example at a time."""
    dataset, split = load(run.experiment.data), SplitIndices.load(run.split_file)
    labelled = set(split.labelled.tolist())
    pool = [row for row in split.unlabelled.tolist() if row not in labelled]
    p = probabilities(run, torch.tensor(pool))
    unsure = {}
    for row, q in zip(pool, p.tolist(), strict=True):
        first, second = sorted(q)[-1], sorted(q)[-2]
        entropy = -sum(a * math.log(a) for a in q if a > 0) / math.log(len(q))
        unsure[row] = 1 - (first - second) if score == "margin" else entropy
    best = sorted(pool, key=lambda row: -unsure[row])[: candidates * n]
    network = run.network().network
    assert isinstance(network, Classifier)
    with torch.no_grad():
        every = network.features(as_float(dataset.train.x[torch.arange(len(dataset.train))])).double()
    near = [every[row] for row in sorted(labelled)]
    chosen: list[int] = []
    for _ in range(n):
        left = [row for row in best if row not in chosen]
        worth = {row: unsure[row] * min(float((every[row] - other).square().sum()) for other in near) for row in left}
        chosen.append(max(left, key=lambda row: worth[row]))
        near.append(every[chosen[-1]])
    return chosen


@pytest.mark.parametrize("score", ["margin", "entropy"])
def test_the_rule_is_the_one_that_is_written(digits: Run, score: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [int(each.name) for each in suggest(digits, 5, score=score).items]
    assert found == by_hand(digits, 5, score)
    # The control: with as many candidates as suggestions, it is uncertainty alone.
    monkeypatch.setattr(suggesting, "CANDIDATES", 1)
    assert sorted(int(each.name) for each in suggest(digits, 5, score=score).items) != sorted(found)


def test_nothing_labelled_or_held_back_is_suggested_and_nothing_twice(digits: Run) -> None:
    split = SplitIndices.load(digits.split_file)
    found = suggest(digits, 5000)
    rows = [int(each.name) for each in found.items]
    assert found.pool == len(rows) == len(set(rows)) == 1080 - 50
    assert not set(rows) & set(split.labelled.tolist())
    assert not set(rows) & set(split.validation.tolist())


def test_what_is_said_of_each_is_the_network_s(digits: Run) -> None:
    found = suggest(digits, 20)
    assert found.csv() == suggest(digits, 20).csv()
    p = probabilities(digits, torch.tensor([int(each.name) for each in found.items]))
    top = p.topk(2, dim=1)
    classes = digits.network().classes
    assert [each.label for each in found.items] == [classes[c] for c in top.indices[:, 0].tolist()]
    assert [each.second for each in found.items] == [classes[c] for c in top.indices[:, 1].tolist()]
    assert [each.margin for each in found.items] == pytest.approx((top.values[:, 0] - top.values[:, 1]).tolist())
    assert [each.entropy for each in found.items] == pytest.approx((-(p * p.log()).sum(dim=1) / math.log(10)).tolist())
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 21)]
    assert [float(row["margin"]) for row in rows] == pytest.approx([each.margin for each in found.items], abs=1e-6)


def test_copies_are_suggested_last(pictures: Run) -> None:
    found = suggest(pictures, 7)
    names = [each.name for each in found.items]
    assert found.pool == 7
    copies = [f"unlabelled/copy {k}.png" for k in (1, 2, 3)]
    assert names[-2:] == copies[1:], "where one copy is taken, the others are worth nothing"
    assert set(names[:5]) == {"unlabelled/a.png", "unlabelled/b.png", copies[0], "unlabelled/é.png", "unlabelled/z.png"}


def test_a_folder_of_new_images(pictures: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    shutil.copytree(Path(pictures.experiment.data.name) / "unlabelled", folder)
    found = suggest(pictures, 3, folder)
    assert found.source == str(folder)
    assert len({each.name for each in found.items}) == 3
    assert found.items[0].margin == min(each.margin for each in suggest(pictures, 7, folder).items)
    (folder / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.png: an empty file"):
        suggest(pictures, 3, folder)
    assert list(suggest(pictures, 3, folder, skip_damaged=True).damaged) == ["a.png"]


def test_what_the_run_has_labels_of_is_not_asked_for_again(pictures: Run, tmp_path: Path) -> None:
    image: Any = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
    run = Run(tmp_path / "run")
    shutil.copytree(pictures.path, run.path)
    data = tmp_path / "data"
    shutil.copytree(pictures.experiment.data.name, data)
    text = run.experiment_file.read_text(encoding="utf-8")
    run.experiment_file.write_text(text.replace(pictures.experiment.data.name, str(data)), encoding="utf-8")
    folder = tmp_path / "new"
    for k, level in enumerate((0, 240, 130)):
        folder.mkdir(exist_ok=True)
        image.new("L", (4, 4), level).save(folder / f"{k}.png")
    image.new("L", (4, 4), 0).save(folder / "also dark.png")
    names = [each.name for each in suggest(run, 4, folder).items]
    assert names[0] == "2.png", "0, 1 and their copy are labelled already"
    distances = []

    def seen(features: Any, uncertainty: Any, n: int, known: Any = None) -> torch.Tensor:
        distances.append(None if known is None else len(known))
        return diverse(features, uncertainty, n, known)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suggesting, "diverse", seen)
        suggest(run, 4, folder)
        shutil.rmtree(data)
        assert len(suggest(run, 4, folder).items) == 4, "without the run's data they are chosen all the same"
    assert distances == [6, None]


def test_a_run_that_used_all_labels_asks_for_a_folder(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((20, 3))
    np.savez(tmp_path / "all.npz", x=x, y=np.arange(20) % 2)
    experiment = Experiment.of(
        data=str(tmp_path / "all.npz"),
        method="supervised",
        split={"validation": 0},
        training={**TINY, "steps": 2, "batch_labelled": 4},
    )
    run = fit(experiment, tmp_path / "run", progress=False)
    with pytest.raises(InputError, match=r"no examples without label; give a folder of them with --input"):
        suggest(run, 3)
    assert suggest(run, 3, tmp_path / "all.npz").sheet() is None, "vectors are no pictures"


def test_data_that_changed_are_refused(digits: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load(digits.experiment.data)
    monkeypatch.setattr(predicting, "load", lambda choice: dataset)
    suggest(digits, 2)
    dataset.source["content"] = "another"
    with pytest.raises(InputError, match="have changed since the run was trained"):
        suggest(digits, 2)


def test_diversity_alone_is_the_greedy_k_centre_choice() -> None:
    points = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = diverse(points, torch.ones(60), 10).tolist()
    assert chosen[0] == 0
    for count in range(1, 10):
        distance = torch.cdist(points, points[chosen[:count]]).min(dim=1).values
        assert chosen[count] == int(distance.argmax())
    # Known examples count as chosen: a point on top of one comes last.
    assert diverse(points[:5], torch.ones(5), 5, points[2:3]).tolist()[-1] == 2


def test_without_uncertainty_or_distance_the_first_come_first() -> None:
    assert diverse(torch.zeros(3, 2), torch.ones(3), 9).tolist() == [0, 1, 2]
    assert diverse(torch.randn(3, 2), torch.zeros(3), 2).tolist() == [0, 1]
