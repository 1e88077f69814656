"""Mixed precision: what runs in which, and what it leaves as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from vicinal.data import Batch
from vicinal.errors import InputError
from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.methods import METHODS, AdvMixup
from vicinal.networks import Parts, mlp
from vicinal.training import Training
from vicinal.training.module import VicinalModule

torch.set_num_threads(1)


def described(method: Any, **training: Any) -> Experiment:
    settings = {"steps": 4, "batch_labelled": 5, "batch_unlabelled": 8, "threads": 1, "device": "cpu", **training}
    return Experiment.of(
        data="digits", labels=50, recipe="none", method=method, training=settings,
        network={"name": "small_cnn", "widths": [4, 6]},
    )  # fmt: skip


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.dtype, bool]]:
    """For each training pass of the student: the dtype of its logits, and whether its input needs a gradient."""
    seen: list[tuple[torch.dtype, bool]] = []
    made = VicinalModule.__init__

    def watched(self: VicinalModule, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)

        def look(network: nn.Module, given: tuple[Tensor, ...], output: Tensor | Parts) -> None:
            if torch.is_grad_enabled() and network.training:
                logits = output.logits if isinstance(output, Parts) else output
                seen.append((logits.dtype, given[0].requires_grad))

        self.student.register_forward_hook(look)

    monkeypatch.setattr(VicinalModule, "__init__", watched)
    return seen


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.trains == "classifier"])
def test_bf16_trains_in_bf16_searches_in_float32_and_keeps_float32_weights(
    name: str, companions: dict[str, str], passes: list[tuple[torch.dtype, bool]], tmp_path: Path
) -> None:
    kind = METHODS[name]
    method = {"name": name, **(companions if kind.needs.autoencoder else {})}
    run = fit(described(method, precision="bf16-mixed"), tmp_path / "run", progress=False)
    searches = {dtype for dtype, searching in passes if searching}
    others = {dtype for dtype, searching in passes if not searching}
    in_training = (kind.cost.X or kind.cost.x) and name != "cvt_vat"  # which searches in evaluation mode
    assert searches == ({torch.float32} if in_training else set())
    assert torch.bfloat16 in others
    weights = run.checkpoint("last")["state_dict"].values()
    assert not any(value.dtype in (torch.bfloat16, torch.float16) for value in weights if isinstance(value, Tensor))
    for state in run.checkpoint("last")["optimizer_states"][0]["state"].values():
        assert all(value.dtype == torch.float32 for value in state.values() if isinstance(value, Tensor))


def test_without_mixed_precision_every_pass_is_float32(passes: list[tuple[torch.dtype, bool]], tmp_path: Path) -> None:
    fit(described("advmixup"), tmp_path / "run", progress=False)
    assert {dtype for dtype, _ in passes} == {torch.float32}


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"precision": "16-mixed"}, "training.precision: '16-mixed' needs a GPU"),
        pytest.param(
            {"device": "cuda"},
            "training: ",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        ({"device": "mps"}, "training: "),
    ],
)
def test_what_this_machine_cannot_do_is_one_line_and_leaves_nothing(
    training: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        fit(described("supervised", **training), tmp_path / "run", progress=False)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


class _Scaler(torch.amp.GradScaler):
    """Begins with a scale at which float16 gradients overflow, and counts the steps that it left out."""

    def __init__(self) -> None:
        super().__init__("cpu", init_scale=2.0**40, backoff_factor=2.0**-12)
        self.left_out = 0

    def update(self, new_scale: Any = None) -> None:
        before = self.get_scale()
        super().update(new_scale)
        self.left_out += self.get_scale() < before


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # after a step that was left out
def test_under_gradient_scaling_the_teacher_follows_and_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(8, 4, generator=draws)
    batches = [Batch(k, x, (x[:, 0] > 0).long(), torch.arange(8), x.flip(0), torch.arange(8)) for k in range(8)]

    def train(start: int = 0, resume: Path | None = None) -> tuple[VicinalModule, _Scaler]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = VicinalModule(mlp((4,), 2, hidden=[8]), AdvMixup(epsilon=0.1), Training(steps=8))
        scaler = _Scaler()
        every = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = Trainer(
            accelerator="cpu", max_epochs=1, logger=False, callbacks=[every] if resume is None else [],
            enable_checkpointing=resume is None, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path, limit_val_batches=0, plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        )  # fmt: skip
        trainer.fit(module, _Given(batches, start), ckpt_path=resume)
        return module, scaler

    whole, scaler = train()
    assert 0 < scaler.left_out < 8  # some steps were left out, and some were not
    assert whole.teacher is not None
    assert whole.teacher.updates == 8
    for step in (1, 3, 6):
        saved = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)["state_dict"]
        assert saved["teacher._extra_state"] == {"updates": step}
        resumed, _ = train(step, tmp_path / f"step={step}.ckpt")
        for key, value in whole.state_dict().items():
            assert not isinstance(value, Tensor) or torch.equal(value, resumed.state_dict()[key])
    assert not torch.equal(saved["student.head.weight"], whole.student.head.weight)


class _Given:
    def __init__(self, batches: list[Batch], start: int) -> None:
        self.batches, self.start = batches, start

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return iter(self.batches[self.start :])

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
