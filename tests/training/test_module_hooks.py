"""What the LightningModule gives a method, and when: its hooks, strong views, and the network that it can work with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from vicinal.data import Augment, Batch, Strong, as_float
from vicinal.errors import InputError
from vicinal.methods import Context, MeanTeacher, Method, Needs, Step, Supervised, Term
from vicinal.networks import Classifier, mlp, small_cnn
from vicinal.training import TeacherSettings, Training
from vicinal.training.averaging import AveragingSettings
from vicinal.training.module import VicinalModule

Check = Callable[[], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

torch.set_num_threads(1)
IMAGES = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing."""
    return lambda patch: patch.setattr(f"vicinal.training.module.{target}", value)


class Viewing(Method):
    """Asks for weak and strong views."""

    needs: ClassVar[Needs] = Needs(views=2, strong=1)


class Weak(Method):
    """Asks for three weak views."""

    needs: ClassVar[Needs] = Needs(views=3)


class Banked(MeanTeacher):
    """Keeps a bank, a further layer and a diary."""

    def prepare(self, context: Context) -> None:
        self.context, self.diary = context, []
        self.layer = nn.Linear(2, 2)
        self.register_buffer("bank", torch.zeros(context.rows))

    def loss(self, step: Step) -> dict[str, Term]:
        self.diary.append(("loss", step.progress.step))
        terms = super().loss(step)
        return {**terms, "further": Term(self.layer(step.student(step.x)).square().mean())}

    def after_step(self, step: Step) -> None:
        networks = step.student.network, step.teacher.network
        self.diary.append(("after", step.progress.step, weights(networks[0]), weights(networks[1])))
        self.bank[step.u_index] += 1

    def measured(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return torch.tensor(0.25 * len(y))


def weights(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def image_step(method: Method, step: int = 3, strong: Strong | None = None, seed: int = 0) -> Step:
    network = small_cnn((1, 8, 8), 2, widths=[2])
    module = VicinalModule(network, method, Training(steps=9), augment=Augment(crop=2), strong=strong, seed=seed)
    return module.step_of(Batch(step, IMAGES, torch.zeros(5).long(), torch.arange(5), IMAGES, torch.arange(5)))


def banked(seed: int = 0, **more: Any) -> VicinalModule:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = mlp((3,), 2, hidden=(4,))
    return VicinalModule(
        network, Banked(), Training(steps=5), seed=seed, shape=(3,), rows=9, teacher=TeacherSettings(decay=0), **more
    )


class Feed:
    """Batches of vectors; the same to validate."""

    def __init__(self, *, validation: bool = False) -> None:
        self.validation = validation

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[Any]:
        for step in range(5):
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            y, rows = (x[:, 0] > 0).long(), torch.arange(8)
            yield (x, y) if self.validation else Batch(step, x, y, rows, x, rows)


def trained(module: VicinalModule, folder: Path) -> dict[str, Any]:
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, Feed(), Feed(validation=True))
    return dict(trainer.callback_metrics)


def strong_views_come_behind_the_weak_ones() -> None:
    """The weak views are those of a method without strong ones; the strong one starts from a weak one of its own."""
    weak, strong = image_step(Weak()), image_step(Viewing())
    assert len(strong.u) == 3
    for k in range(2):
        assert torch.equal(strong.u[k], weak.u[k])
    assert (strong.u[2].shape, strong.u[2].dtype) == ((5, 1, 8, 8), torch.float32)
    assert not torch.equal(strong.u[2], weak.u[2])
    assert torch.equal(strong.x, weak.x)  # the labelled view is weak
    bare = image_step(Viewing(), strong=Strong(operations=0, cutout=0))
    assert torch.equal(bare.u[2], weak.u[2])  # with nothing to do, that weak view is what is left
    assert not torch.equal(bare.u[2], bare.u[0])


def strong_views_are_a_function_of_seed_and_step() -> None:
    views = [image_step(Viewing(), **more).u[2] for more in ({}, {}, {"step": 4}, {"seed": 1})]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    assert not torch.equal(views[0], views[3])
    # Not only because the weak view below is another one.
    plain = [image_step(Viewing(), step=step, strong=Strong(operations=0, cutout=0)).u[2] for step in (3, 4)]
    module = VicinalModule(small_cnn((1, 8, 8), 2, widths=[2]), Viewing(), Training(), strong=Strong(cutout=1))
    assert not torch.equal(module._strong(plain[0], 0, 3, 0), module._strong(plain[0], 0, 4, 0))
    assert not torch.equal(as_float(IMAGES), plain[0])


def preparing_is_seeded_and_leaves_no_trace() -> None:
    """The same layers whatever was drawn before, others under another seed, and the global generator as it was."""
    torch.manual_seed(1)
    one = banked()
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    two, other = banked(), banked(seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(one.method.layer.weight, two.method.layer.weight)
    assert not torch.equal(one.method.layer.weight, other.method.layer.weight)
    context = one.method.context
    assert context.network is one.student
    assert (context.shape, context.rows, context.autoencoder) == ((3,), 9, None)


def after_step_follows_optimiser_and_teacher() -> None:
    """Once after each step, with that step: the student has moved, and so has its teacher (of decay 0)."""
    module = banked()
    optimizer = module.configure_optimizers()["optimizer"]
    for batch in Feed():
        before = weights(module.student)
        optimizer.zero_grad()
        module.training_step(batch, batch.step).backward()
        module.optimizer_step(0, batch.step, optimizer, None)
        first, second = module.method.diary[-2:]
        assert (first, second[:2]) == (("loss", batch.step), ("after", batch.step))
        assert not torch.equal(second[2], before)
        assert torch.equal(second[3], second[2])
    assert len(module.method.diary) == 10
    assert module.method.bank.tolist() == [5] * 8 + [0]


def parameters_of_the_method_are_trained_and_saved() -> None:
    module, before = banked(), banked()
    optimizer = module.configure_optimizers()["optimizer"]
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert {id(p) for p in (*module.student.parameters(), *module.method.layer.parameters())} == moved
    batch = next(iter(Feed()))
    module.training_step(batch, 0).backward()
    module.optimizer_step(0, 0, optimizer, None)
    assert not torch.equal(module.method.layer.weight, before.method.layer.weight)
    saved = module.state_dict()
    assert {"method.bank", "method.layer.weight", "method.layer.bias"} <= saved.keys()
    before.load_state_dict(saved)
    assert torch.equal(before.method.bank, module.method.bank)


def _from_first(self: VicinalModule, x: Tensor, seed: int, step: int, view: int) -> Tensor:
    return _strong(self, as_float(IMAGES), seed, step, view)


def _fixed_step(self: VicinalModule, x: Tensor, seed: int, step: int, view: int) -> Tensor:
    return _strong(self, x, seed, 0, view)


def _method_first(self: VicinalModule, *args: Any) -> None:
    self.method.after_step(self._step)
    self._step = None
    _optimizer_step(self, *args)


def _student_alone(self: VicinalModule) -> dict[str, Any]:
    return {"optimizer": self.training_settings.optimizer_for(self.student.parameters())}


_strong, _optimizer_step = VicinalModule._strong, VicinalModule.optimizer_step
CASES: list[tuple[str, Check, Mutation]] = [
    ("strong | of the raw images", strong_views_come_behind_the_weak_ones,
     patched("VicinalModule._strong", _from_first)),
    ("strong | the same at every step", strong_views_are_a_function_of_seed_and_step,
     patched("VicinalModule._strong", _fixed_step)),
    ("preparing | not seeded", preparing_is_seeded_and_leaves_no_trace, patched("seed_of", lambda seed, *_: 0)),
    ("after | before the optimiser", after_step_follows_optimiser_and_teacher,
     patched("VicinalModule.optimizer_step", _method_first)),
    ("trained | the student alone", parameters_of_the_method_are_trained_and_saved,
     patched("VicinalModule.configure_optimizers", _student_alone)),
]  # fmt: skip
IDENTITIES = [pytest.param(check, mutate, id=name) for name, check, mutate in CASES]


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_holds(check: Check, mutate: Mutation) -> None:
    check()


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_fails_when_mutated(check: Check, mutate: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check()


def test_validation_counts_what_the_method_measures(tmp_path: Path) -> None:
    assert float(trained(banked(), tmp_path)["validation_error"]) == 0.25


def test_validation_measures_student_teacher_and_average_and_the_average_counts(tmp_path: Path) -> None:
    averaging = AveragingSettings(kind="ema", decay=1.0, warm_up=False)  # stays where the training begins
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)  # so that the three errors differ
        network = mlp((3,), 2, hidden=(4,))
    module = VicinalModule(network, MeanTeacher(), Training(steps=5, learning_rate=0.1), averaging=averaging)
    found = trained(module, tmp_path)
    names = ("student", "teacher", "average")
    assert {f"validation_error_{name}" for name in names} | {"validation_error"} == found.keys()
    networks = module.student, module.teacher.network, module.average.network
    wrong = {
        name: sum(int((network.eval()(x).argmax(1) != y).sum()) for x, y in Feed(validation=True)) / 40
        for name, network in zip(names, networks, strict=True)
    }
    for name, error in wrong.items():
        assert float(found[f"validation_error_{name}"]) == pytest.approx(error)
    assert len(set(wrong.values())) == 3
    assert float(found["validation_error"]) == pytest.approx(wrong["average"])
    assert torch.equal(module(torch.ones(2, 3)), module.average.network(torch.ones(2, 3)))


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"features": True}, "network: the method needs pooled features"),
        ({"stages": True}, "network: the method mixes in hidden layers, and this network names no stages"),
        ({"map": True}, "network: the method needs a feature map that is averaged at the end"),
    ],
)
def test_a_network_that_lacks_what_the_method_needs_is_refused(needs: dict[str, bool], words: str) -> None:
    class Needy(Supervised):
        pass

    Needy.needs = Needs(**needs)
    bare = Classifier(nn.Identity(), nn.Flatten(), nn.Linear(36, 2), feature_dim=None, classes=2)
    with pytest.raises(InputError, match=f"^{words}"):
        VicinalModule(bare, Needy(), Training())
    VicinalModule(small_cnn((1, 6, 6), 2, widths=[2]), Needy(), Training())
    VicinalModule(bare, Supervised(), Training())


def test_a_network_of_another_kind_is_refused() -> None:
    from vicinal.networks import Autoencoder

    class Coder(Autoencoder):
        latent = 1

    class Coding(Supervised):
        trains = "autoencoder"

    with pytest.raises(InputError, match=r"^network: the method trains a classifier, and this is an autoencoder"):
        VicinalModule(Coder(), Supervised(), Training())
    with pytest.raises(InputError, match=r"^network: the method trains an autoencoder.* such as mmd_vae"):
        VicinalModule(mlp((3,), 2), Coding(), Training())
