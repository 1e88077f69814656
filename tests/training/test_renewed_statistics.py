"""Running statistics of a mean of snapshots: renewed exactly when needed, from the pool alone; with mutations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from vicinal.assembling import Assembled
from vicinal.data import Augment, Batch
from vicinal.errors import InputError
from vicinal.experiment import Experiment
from vicinal.methods import ICT, Supervised
from vicinal.networks import mlp, small_cnn
from vicinal.training import averaging
from vicinal.training.averaging import AveragingSettings, SnapshotAverage
from vicinal.training.config import Training
from vicinal.training.module import VicinalModule

Mutation = Callable[[pytest.MonkeyPatch], None]

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
_renew = SnapshotAverage.renew_statistics
STEPS, REFRESH = 12, 3
POOL = torch.randn(40, 3, generator=torch.Generator().manual_seed(1)) + 5  # far from what the batches hold


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing."""
    return lambda patch: patch.setattr(f"vicinal.training.{target}", value)


class Feed:
    """Batches to train on, or to validate."""

    def __init__(self, count: int, *, validation: bool = False) -> None:
        self.count, self.validation = count, validation

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        for step in range(self.count):
            draws = torch.Generator().manual_seed(step)
            x, u = torch.randn(6, 3, generator=draws), torch.randn(8, 3, generator=draws)
            y = (x[:, 0] > 0).long()
            yield (x, y) if self.validation else Batch(step, x, y, torch.arange(6), u, torch.arange(8))


class Passes:
    """Records the renewing passes: after how many steps, of what, and whether in training mode."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps: list[int] = []
        self.inputs: list[Tensor] = []
        self.step = 0
        step = VicinalModule.training_step

        def counted(module: VicinalModule, batch: Batch, index: int) -> Tensor:
            self.step = batch.step + 1
            return step(module, batch, index)

        patch.setattr(VicinalModule, "training_step", counted)
        self.pass_of = averaging.run
        patch.setattr(averaging, "run", self._run)

    def _run(self, network: nn.Module, x: Tensor) -> Tensor:
        self.steps.append(self.step)
        self.inputs.append(x)
        assert not torch.is_grad_enabled()
        return self.pass_of(network, x)


def trained(
    folder: Path, *, validate: int | None = 4, start: float = 0.5, every: float = 0.25, steps: int = STEPS,
    norm: str = "batch", pool: Any = POOL, seed: int = 0, **more: Any,
) -> VicinalModule:  # fmt: skip
    """A module that was trained under a plain Trainer; snapshots at 6, 9, 12 and validations at 4, 8, 12."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = mlp((3,), 2, hidden=(4, 4), norm=norm, dropout=0.3)  # dropout before a batch norm
    module = VicinalModule(
        network, ICT(), Training(steps=STEPS, batch_unlabelled=7, learning_rate=0.05), seed=seed, pool=pool,
        averaging=AveragingSettings(kind="swa", start=start, every=every, **{"refresh": REFRESH, **more}),
    )  # fmt: skip
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", max_steps=steps, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, val_check_interval=validate,
        check_val_every_n_epoch=None, num_sanity_val_steps=0, limit_val_batches=None if validate else 0,
    )  # fmt: skip
    trainer.fit(module, Feed(STEPS), Feed(2, validation=True) if validate else None)
    return module


def statistics(module: VicinalModule) -> list[Tensor]:
    return [buffer.clone() for buffer in module.average.network.buffers()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def renewed_when_needed(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Before a validation that follows a new snapshot, and at the end; nowhere else."""
    for settings, at in (
        ({}, [8, 12]),  # snapshots at 6, 9, 12, validations at 4, 8, 12
        ({"validate": 2}, [6, 10, 12]),
        ({"validate": 5}, [10, 12]),
        ({"validate": None}, [12]),
        ({"start": 1.0}, [12]),
        ({"start": 1 / 3, "every": 1.0}, [4, 12]),  # snapshots at 4 and at the end
        ({"norm": "none"}, []),
        ({"norm": "none", "pool": None}, []),
        ({"refresh": 0, "pool": POOL}, []),
    ):
        watch = Passes(patch)
        module = trained(folder, **settings)
        assert watch.steps == [step for step in at for _ in range(REFRESH)], settings
        assert not module.average.stale


def statistics_change_and_weights_do_not(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Twenty passes over the pool: its means are there, and the counter has counted on from the copied one."""
    module = trained(folder, refresh=0)
    average, copied = module.average, statistics(module)
    assert equal(copied, list(module.student.buffers()))
    weights = [parameter.clone() for parameter in average.network.parameters()]
    average.renew_statistics(POOL, lambda x, draws: x, count=20, passes=20, seed=0)
    assert all(not torch.equal(one, other) for one, other in zip(statistics(module), copied, strict=True))
    assert equal(weights, list(average.network.parameters()))
    norm = next(layer for layer in average.network.modules() if isinstance(layer, nn.BatchNorm1d))
    assert int(norm.num_batches_tracked) == int(copied[-1]) + 20
    place = list(average.network.body).index(norm)
    with torch.no_grad():
        mean = average.network.body[:place](POOL).mean(dim=0)
    assert float((norm.running_mean - mean).norm()) < 0.5 * float((copied[0] - mean).norm())


def they_are_a_function_of_seed_and_step(folder: Path, patch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    one = trained(folder)
    torch.manual_seed(2)
    two = trained(folder)
    assert equal(statistics(one), statistics(two))
    # The same average under another seed, and under another number of snapshots, draws other batches.
    seen, found, before = [], [], copy.deepcopy(two.average.state_dict())
    for seed, updates in ((0, 3), (0, 3), (0, 4), (1, 3)):
        watch = Passes(patch)
        two.average.load_state_dict(before)
        two.average.updates = updates
        two.average.renew_statistics(POOL, lambda x, draws: x, count=7, passes=2, seed=seed)
        seen.append(torch.cat(watch.inputs))
        found.append(statistics(two))
    assert torch.equal(seen[0], seen[1])
    assert equal(found[0], found[1])  # dropout before a batch norm included
    assert not torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[3])
    assert not torch.equal(seen[0][:7], seen[0][7:])  # nor is one batch the next


def they_come_from_the_pool_alone(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Every renewing pass runs on rows of the pool, each once in a batch, as many as an unlabelled batch has."""
    watch = Passes(patch)
    trained(folder)
    pool = {tuple(row.tolist()) for row in POOL}
    for x in watch.inputs:
        rows = [tuple(row.tolist()) for row in x]
        assert len(rows) == 7
        assert len(set(rows)) == 7
        assert set(rows) <= pool
    small = Passes(patch)
    trained(folder, pool=POOL[:5])
    assert {len(x) for x in small.inputs} == {5}


def the_pool_has_no_validation_rows(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """The labelled and the unlabelled rows, also for a method that uses no unlabelled data."""
    parts = Assembled(
        Experiment.of(data="digits", method="supervised", recipe="none", labels=50, split={"validation": 200})
    )
    pool, split = parts.module().pool, parts.split
    rows = torch.cat([split.labelled, split.unlabelled]).unique()
    assert len(split.validation) == 200
    assert len(pool) == len(rows) == len(parts.dataset.train) - 200
    assert not torch.isin(rows, split.validation).any()
    assert torch.equal(pool[torch.arange(len(pool))], parts.dataset.train.x[rows])


def they_see_augmented_views_in_training_mode(folder: Path, patch: pytest.MonkeyPatch) -> None:
    watch = Passes(patch)
    network = small_cnn((1, 6, 6), 2, widths=(2,))
    module = VicinalModule(
        network, Supervised(), Training(batch_unlabelled=4), augment=Augment(crop=2),
        pool=torch.randint(1, 255, (4, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        averaging=AveragingSettings(kind="swa", refresh=4),
    )  # fmt: skip
    module.average.update(module.student)
    module.eval()
    before = statistics(module)
    module._renew_statistics()
    assert not equal(before, statistics(module))
    assert not any(part.training for part in module.average.modules())  # flags are as they were
    for x in watch.inputs:
        assert (x.dtype, x.shape) == (torch.float32, (4, 1, 6, 6))
        assert 0 < float(x.max()) <= 1
    known = {tuple(image.flatten().tolist()) for image in module.pool}
    moved = [tuple((image * 255).round().int().flatten().tolist()) not in known for x in watch.inputs for image in x]
    assert sum(moved) > 8  # by up to 2 pixels, and 24 of 25 moves change an image


def validation_measures_renewed_statistics(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Also in a Trainer that validates when it likes, and stops before the end of the schedule."""
    seen = []
    step = VicinalModule.validation_step

    def looking(self: VicinalModule, batch: Any, index: int) -> None:
        seen.append(self.average.stale)
        step(self, batch, index)

    patch.setattr(VicinalModule, "validation_step", looking)
    trained(folder, validate=1, start=0.25, every=1 / 12, steps=7)
    assert seen == [False] * 14


def _at_each_snapshot(self: VicinalModule, done: int) -> None:
    if self.averaging.is_due(done, STEPS):
        self.average.update(self.student)
        self._renew_statistics()


def _cumulative(self: SnapshotAverage, *args: Any, **settings: Any) -> None:
    for buffer in self.network.buffers():
        buffer.zero_()
    self.stale = False


def _with_weights(self: SnapshotAverage, *args: Any, **settings: Any) -> None:
    _renew(self, *args, **settings)
    for parameter in self.network.parameters():
        parameter.data *= 0.9


def _from_batch(self: VicinalModule) -> None:
    if self.average.stale:
        self.average.renew_statistics(torch.zeros(30, 3), self._view, count=7, passes=REFRESH, seed=0)


def _unseeded(seed: int, purpose: str, *counters: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(torch.randint(10**9, ())))


CASES: list[tuple[str, Callable[..., None], Mutation]] = [
    ("when | at each snapshot", renewed_when_needed, patched("module.VicinalModule._follow", _at_each_snapshot)),
    ("when | never", renewed_when_needed, patched("module.VicinalModule._renew_statistics", lambda self: None)),
    ("change | reset instead", statistics_change_and_weights_do_not,
     patched("averaging.SnapshotAverage.renew_statistics", _cumulative)),
    ("change | weights too", statistics_change_and_weights_do_not,
     patched("averaging.SnapshotAverage.renew_statistics", _with_weights)),
    ("draws | not seeded", they_are_a_function_of_seed_and_step, patched("averaging.generator", _unseeded)),
    ("draws | dropout not seeded", they_are_a_function_of_seed_and_step,
     patched("averaging.seed_global", lambda seed, device: None)),
    ("pool | something else", they_come_from_the_pool_alone,
     patched("module.VicinalModule._renew_statistics", _from_batch)),
    ("pool | all rows", the_pool_has_no_validation_rows,
     lambda patch: patch.setattr(Assembled, "inputs", property(lambda self: self.dataset.train.x))),
    ("views | not augmented", they_see_augmented_views_in_training_mode,
     patched("module.augment", lambda x, config, draws: x)),
    ("views | eval mode", they_see_augmented_views_in_training_mode,
     patched("averaging.run", lambda network, x: network(x))),
    ("validation | stale", validation_measures_renewed_statistics,
     patched("module.VicinalModule.on_validation_epoch_start", lambda self: self._wrong.clear())),
]  # fmt: skip
IDENTITIES = [pytest.param(check, mutate, id=name) for name, check, mutate in CASES]


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_holds(check: Callable[..., None], mutate: Mutation, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        check(tmp_path, patch)


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_fails_when_mutated(
    check: Callable[..., None], mutate: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError):
        check(tmp_path, patch)


def test_without_training_inputs_there_is_nothing_to_renew_from(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^averaging: the mean of snapshots needs training inputs"):
        trained(tmp_path, pool=None)
