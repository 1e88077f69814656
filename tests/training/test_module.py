"""The LightningModule: the same twice, under anybody's Trainer, and blind to what it must not see."""

from __future__ import annotations

import copy
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from vicinal.data import Augment, Batch
from vicinal.errors import InputError
from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.methods import ICT, METHODS, AdvMixup, MeanTeacher, Supervised
from vicinal.networks import Classifier, mlp, small_cnn
from vicinal.training import Training
from vicinal.training.module import VicinalModule

torch.set_num_threads(1)
pytestmark = [
    # What Lightning says of a plain Trainer without validation data, and of one that resumes.
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),
]


def described(method: Any = "advmixup", seed: int = 0, **more: Any) -> Experiment:
    """A small run with everything that draws."""
    values: dict[str, Any] = {
        "data": "digits",
        "labels": 50,
        "recipe": "none",
        "network": {"name": "small_cnn", "widths": [4, 6], "dropout": 0.2, "input_noise": 0.1},
        "augment": {"crop": 1},
    }
    training = {"steps": 6, "batch_labelled": 7, "batch_unlabelled": 9, "learning_rate": 0.02, "threads": 1}
    training |= {"device": "cpu", "log_every": 2, "validate_every": 3, **more.pop("training", {})}
    return Experiment.of({**values, **more, "method": method, "seed": seed, "training": training})


def trained(experiment: Experiment, folder: Path) -> dict[str, Tensor]:
    return fit(experiment, folder, progress=False).checkpoint("last")["state_dict"]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Bit-equal, buffers, counters and the methods' own states included."""
    return plain(one) == plain(other)


def plain(value: Any) -> Any:
    """Tensors, wherever they are, as their bytes."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.detach().cpu().numpy().tobytes()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


class Feed:
    """Batches of random vectors, made anew for each step: an iterable that is nothing but Python."""

    def __init__(self, steps: int, start: int = 0) -> None:
        self.steps, self.start = steps, start

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.start, self.steps):
            draws = torch.Generator().manual_seed(step)
            x, u = torch.randn(6, 4, generator=draws), torch.randn(8, 4, generator=draws)
            yield Batch(step, x, (x[:, 0] > 0).long(), torch.arange(6), u, torch.arange(8))


def small_network(seed: int = 0, **settings: Any) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return mlp((4,), 2, **{"hidden": [8], "norm": "batch", "dropout": 0.3, **settings})


def plain_module(steps: int = 12, **more: Any) -> VicinalModule:
    training = Training(steps=steps, learning_rate=0.05, log_every=5, **more)
    return VicinalModule(small_network(), AdvMixup(epsilon=0.1), training)


def plain_trainer(folder: Path, **settings: Any) -> Trainer:
    """A Trainer as anybody would write it, only silent."""
    return Trainer(
        default_root_dir=folder, accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_the_same_experiment_twice_is_bit_equal_and_another_seed_is_not(
    name: str, tmp_path: Path, companions: dict[str, str]
) -> None:
    kind = METHODS[name]
    method = {"name": name, **(companions if kind.needs.autoencoder else {})}
    more: dict[str, Any] = {"network": "mmd_vae"} if kind.trains == "autoencoder" else {}
    torch.manual_seed(1)
    first = trained(described(method, **more), tmp_path / "1")
    torch.manual_seed(2)  # the surroundings do not matter
    assert same(first, trained(described(method, **more), tmp_path / "2"))
    assert not same(first, trained(described(method, seed=1, **more), tmp_path / "3"))


@pytest.mark.parametrize("part", ["dropout", "augmentation", "noise"])
def test_each_source_of_randomness_takes_part(part: str, tmp_path: Path) -> None:
    """Without this, the test above would hold for a network that draws nothing."""
    settings: dict[str, Any] = {"name": "small_cnn", "widths": [4, 6], "dropout": 0.2, "input_noise": 0.1}
    change: dict[str, Any] = {
        "dropout": {"network": settings | {"dropout": 0.0}},
        "noise": {"network": settings | {"input_noise": 0.0}},
        "augmentation": {"augment": {"crop": 0}},
    }[part]
    weights = [trained(described(**more), tmp_path / name) for name, more in (("a", {}), ("b", change))]
    values = [{key: value for key, value in state.items() if value is not None} for state in weights]
    assert not all(torch.equal(values[0][key], values[1][key]) for key in values[0] if key.endswith("head.weight"))


def test_training_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    fit(described(), tmp_path / "run", progress=False)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_plain_trainer_with_its_own_checkpoints(tmp_path: Path) -> None:
    """Lightning saves at the end of the epoch, before the module's own hooks; a resumed run must not notice."""
    every = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=5, save_top_k=-1)
    whole = plain_module()
    plain_trainer(tmp_path, callbacks=[every]).fit(whole, Feed(12))
    resumed = plain_module()
    resumed.student.head.weight.data.zero_()
    trainer = plain_trainer(tmp_path, enable_checkpointing=False)
    trainer.fit(resumed, Feed(12, start=5), ckpt_path=tmp_path / "step=5.ckpt")
    assert same(whole.state_dict(), resumed.state_dict())
    saved = torch.load(tmp_path / "step=5.ckpt", weights_only=True)["state_dict"]
    assert saved["teacher._extra_state"] == {"updates": 5}
    assert not same(whole.state_dict(), saved)


def test_a_plain_trainer_as_it_comes(tmp_path: Path) -> None:
    module = plain_module()
    plain_trainer(tmp_path).fit(module, Feed(12))
    (saved,) = tmp_path.rglob("*.ckpt")  # by the default ModelCheckpoint
    assert same(torch.load(saved, weights_only=True)["state_dict"], module.state_dict())


class _Saver(Callback):
    """Saves in the first hook after the step, as Lightning's ModelCheckpoint does."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        self.seen.append((trainer.global_step, pl_module.teacher.updates))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_teacher_follows_each_optimiser_step_before_anything_is_saved(tmp_path: Path, accumulate: int) -> None:
    saver = _Saver()
    module = plain_module()
    trainer = plain_trainer(tmp_path, callbacks=[saver], enable_checkpointing=False, accumulate_grad_batches=accumulate)
    trainer.fit(module, Feed(12))
    assert saver.seen[-1] == (12 // accumulate,) * 2
    assert all(step == updates for step, updates in saver.seen)


def test_validation_counts_errors_and_leaves_everything_as_it_was(tmp_path: Path) -> None:
    module = plain_module()
    draws = torch.Generator().manual_seed(0)
    batches = [(torch.randn(n, 4, generator=draws), torch.randint(2, (n,), generator=draws)) for n in (7, 7, 2)]
    before = copy.deepcopy(module.state_dict())
    (found,) = plain_trainer(tmp_path).validate(module, Listed(batches), verbose=False)
    assert same(before, module.state_dict())
    assert module.teacher is not None
    for name, network in (("student", module.student), ("teacher", module.teacher.network)):
        with torch.no_grad():
            wrong = sum(int((network.eval()(x).argmax(1) != y).sum()) for x, y in batches)
        assert found[f"validation_error_{name}"] == pytest.approx(wrong / 16, abs=1e-7)
    assert found["validation_error"] == found["validation_error_teacher"]
    assert module.evaluated is module.teacher.network
    assert VicinalModule(small_network(), Supervised(), Training()).teacher is None


class Listed:
    """A loader over batches that are there already; Lightning takes a bare list for several loaders."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


class _Log(Callback):
    def __init__(self) -> None:
        self.kept: dict[int, dict[str, float]] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.logged:
            self.kept[trainer.global_step] = pl_module.logged


def test_logged_values_are_floats_of_the_steps_asked_for(tmp_path: Path) -> None:
    log = _Log()
    plain_trainer(tmp_path, callbacks=[log], enable_checkpointing=False).fit(plain_module(), Feed(12))
    assert list(log.kept) == [1, 6, 11, 12]
    names = {"loss", "supervised", "supervised_weight", "consistency", "consistency_weight", "learning_rate"}
    for values in log.kept.values():
        assert set(values) == names
        assert all(type(value) is float for value in values.values())
        total = sum(values[name] * values[f"{name}_weight"] for name in ("supervised", "consistency"))
        assert values["loss"] == pytest.approx(total, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    module = VicinalModule(small_network(norm="none"), Supervised(), Training(steps=5))
    with torch.no_grad():
        module.student.head.bias.fill_(float("nan"))
    batch = next(iter(Feed(1)))
    with pytest.raises(InputError, match=r"the loss is not finite at step 0 .*lower the learning rate"):
        module.training_step(batch, 0)


def test_what_a_method_needs_must_be_there() -> None:
    module = VicinalModule(small_network(), ICT(), Training())
    batch = next(iter(Feed(1)))
    with pytest.raises(InputError, match="needs unlabelled"):
        module.step_of(batch._replace(u=None, u_index=None))
    from vicinal.training import TeacherSettings

    with pytest.raises(InputError, match=r"^teacher\.init"):
        VicinalModule(small_network(), ICT(), Training(), teacher=TeacherSettings(init="independent"))


def test_augmentation_depends_on_the_step_and_the_view() -> None:
    training = Training(channels_last=False)
    network = small_cnn((1, 8, 8), 2, widths=[2])
    module = VicinalModule(network, MeanTeacher(), training, augment=Augment(crop=3))
    x = torch.rand(4, 1, 8, 8)
    batch = Batch(5, x, torch.zeros(4, dtype=torch.int64), torch.arange(4), x, torch.arange(4))
    one, again, other = module.step_of(batch), module.step_of(batch), module.step_of(batch._replace(step=6))
    assert torch.equal(one.u[0], again.u[0])
    assert torch.equal(one.x, again.x)
    assert not torch.equal(one.u[0], one.u[1])
    assert not torch.equal(one.u[0], other.u[0])


def test_memory_and_time_of_a_step_stay_the_same(tmp_path: Path) -> None:
    class Watch(Callback):
        def __init__(self) -> None:
            self.memory: list[int] = []
            self.clock: list[float] = []

        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
            if trainer.global_step % 500 == 0:
                self.memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
                self.clock.append(time.process_time())

    watch = Watch()
    module = plain_module(2000)
    plain_trainer(tmp_path, callbacks=[watch], enable_checkpointing=False).fit(module, Feed(2000))
    assert watch.memory[-1] - watch.memory[0] < 4000  # kB over 1500 steps; a graph kept would take more per step
    pace = np.diff(watch.clock)
    assert pace[-1] < 2 * pace[0] + 0.2
    assert module.teacher is not None
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in module.teacher.parameters())
    assert all(buffer.grad_fn is None for buffer in module.buffers())
