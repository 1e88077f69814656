"""Weight decay: coupled with the gradient or multiplied after the step, on everything or on weights; with mutations."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.data import Batch
from vicinal.errors import InputError
from vicinal.methods import MeanTeacher, Method, Step, Supervised, Term
from vicinal.networks import Classifier, cnn13, mlp
from vicinal.training.config import Training
from vicinal.training.module import VicinalModule
from vicinal.training.teacher import TeacherSettings

Mutation = Callable[[pytest.MonkeyPatch], None]

torch.set_num_threads(1)
LR, DECAY = 0.25, 0.08


class Headed(Method):
    """Supervised, with a further layer that it trains and one that it keeps fixed."""

    def prepare(self, context: Any) -> None:
        self.further, self.fixed = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)

    def trained(self) -> Iterable[nn.Parameter]:
        return self.further.parameters()

    def loss(self, step: Step) -> dict[str, Term]:
        return {"supervised": Term(self.further(step.student(step.x)).square().mean())}


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing."""
    return lambda patch: patch.setattr(f"vicinal.training.{target}", value)


def network() -> Classifier:
    """Linear layers and batch norm, nothing of it 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = mlp((3,), 2, hidden=(4,), norm="batch")
        for parameter in made.parameters():
            nn.init.normal_(parameter)
    return made


def training(**settings: Any) -> Training:
    return Training(**{"steps": 4, "learning_rate": LR, "weight_decay": DECAY, "schedule": "constant", **settings})


def stepped(steps: int = 1, *, method: Method | None = None, frozen: bool = False, **settings: Any) -> VicinalModule:
    """A module after a step on fixed data."""
    net = network()
    net.head.weight.requires_grad_(not frozen)
    module = VicinalModule(
        net, method or Supervised(), training(steps=max(steps, 4), **settings), teacher=TeacherSettings(decay=0)
    )
    found = module.configure_optimizers()
    optimizer, schedule = found["optimizer"], found["lr_scheduler"]["scheduler"]
    draws = torch.Generator().manual_seed(0)
    for step in range(steps):
        x = torch.randn(6, 3, generator=draws)
        batch = Batch(step, x, (x[:, 0] > 0).long(), torch.arange(6), x, torch.arange(6))
        optimizer.zero_grad()
        module.training_step(batch, step).backward()
        module.optimizer_step(0, step, optimizer, None)
        schedule.step()
    return module


def named(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def shrunk(plain: Tensor, factor: float = 1 - DECAY * LR) -> Tensor:
    return plain * torch.tensor(factor, dtype=torch.float64).float()


def weights_are_multiplied_after_the_step() -> None:
    """(1 - weight_decay x learning rate) x the weights that a step without decay gives, for SGD and Adam alike."""
    for optimizer in ("sgd", "adam"):
        plain = named(stepped(weight_decay=0, optimizer=optimizer).student)
        found = named(stepped(weight_decay_form="multiplicative", optimizer=optimizer).student)
        for name, value in found.items():
            assert not torch.equal(value, plain[name])
            torch.testing.assert_close(value, shrunk(plain[name]), rtol=1e-6, atol=0)


def biases_and_batch_norm_stay() -> None:
    """Under "weights" alone they are, to the bit, what they are without decay; running statistics in either case."""
    plain, found = stepped(weight_decay=0), stepped(weight_decay_form="multiplicative", weight_decay_on="weights")
    without = named(plain.student)
    for name, value in named(found.student).items():
        if name in ("body.1.weight", "head.weight"):
            torch.testing.assert_close(value, shrunk(without[name]), rtol=1e-6, atol=0)
        else:
            assert torch.equal(value, without[name]), name
    everything = stepped(weight_decay_form="multiplicative")
    for other in (found, everything):
        assert all(map(torch.equal, plain.student.buffers(), other.student.buffers()))


def coupled_is_a_gradient_of_the_penalty() -> None:
    """A first step of plain SGD: theta - lr (g + weight_decay theta)."""
    before = named(network())
    for on in ("all", "weights"):
        settings: dict[str, Any] = {"momentum": 0.0, "weight_decay_on": on}
        plain, found = named(stepped(weight_decay=0, **settings).student), named(stepped(**settings).student)
        for name, value in found.items():
            decays = on == "all" or name in ("body.1.weight", "head.weight")
            torch.testing.assert_close(value, plain[name] - (LR * DECAY * before[name] if decays else 0))


def weights_alone_take_two_groups() -> None:
    for optimizer in ("sgd", "adam"):
        net = network()
        made = training(optimizer=optimizer, weight_decay_on="weights").optimizer_for(net.parameters())
        assert len(made.param_groups) == 2
        decayed, rest = made.param_groups
        assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3), (2, 4)]
        assert [tuple(p.shape) for p in rest["params"]] == [(4,), (4,), (4,), (2,)]
        assert (decayed["weight_decay"], rest["weight_decay"]) == (DECAY, 0)
        (single,) = training(optimizer=optimizer).optimizer_for(net.parameters()).param_groups
        assert (len(single["params"]), single["weight_decay"]) == (6, DECAY)
        groups = training(optimizer=optimizer, weight_decay_form="multiplicative").optimizer_for(net.parameters())
        assert [group["weight_decay"] for group in groups.param_groups] == [0]


def both_groups_follow_the_schedule() -> None:
    """Two steps of a cosine: the decay is (1 - weight_decay lr_k) at the rate of each step, in both groups."""
    module = VicinalModule(network(), Supervised(), training(schedule="cosine", weight_decay_on="weights"))
    found = module.configure_optimizers()
    optimizer, schedule = found["optimizer"], found["lr_scheduler"]["scheduler"]
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([LR * (0.5 + 0.5**1.5)] * 2)
    rate = {"schedule": "cosine", "momentum": 0.0, "weight_decay_form": "multiplicative"}
    decayed, last = named(stepped(2, **rate).student), named(stepped(1, **rate).student)
    torch.testing.assert_close(
        decayed["body.1.bias"],  # batch norm takes the mean away, so the bias has no gradient
        shrunk(last["body.1.bias"], 1 - DECAY * LR * (0.5 + 0.5**1.5)), rtol=1e-5, atol=1e-7,
    )  # fmt: skip


def it_acts_on_all_that_the_optimiser_moves() -> None:
    """The method's own trained parameters too, and none that are frozen, in either form."""
    for form in ("coupled", "multiplicative"):
        settings = {"method": Headed(), "frozen": True, "weight_decay_form": form}
        plain, found = named(stepped(weight_decay=0, **settings)), named(stepped(**settings))
        assert torch.equal(found["student.head.weight"], network().head.weight)
        assert torch.equal(found["method.fixed.weight"], plain["method.fixed.weight"])
        for name in ("method.further.weight", "method.further.bias", "student.body.1.weight"):
            assert not torch.equal(found[name], plain[name]), name
            if form == "multiplicative":
                torch.testing.assert_close(found[name], shrunk(plain[name]), rtol=1e-6, atol=0)


def the_teacher_follows_the_decayed_weights() -> None:
    module = stepped(method=MeanTeacher(), weight_decay_form="multiplicative")
    assert all(
        torch.equal(one, other)
        for one, other in zip(module.teacher.network.parameters(), module.student.parameters(), strict=True)
    )


def nothing_decays_without_decay() -> None:
    plain = named(stepped(3, weight_decay=0).student)
    for form in ("coupled", "multiplicative"):
        found = named(stepped(3, weight_decay=0, weight_decay_form=form, weight_decay_on="weights").student)
        assert all(torch.equal(value, plain[name]) for name, value in found.items())


def _early(self: Training, optimizer: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.data *= 1 - self.weight_decay  # as if the rate were 1


def _always(self: Training, optimizer: Any) -> None:
    _decay(dataclasses.replace(self, weight_decay=DECAY), optimizer)


def _first_alone(self: Training, optimizer: Any) -> None:
    _decay(self, optimizer.__class__([optimizer.param_groups[0]["params"][0]], lr=LR))


def _lagging(self: VicinalModule, *args: Any) -> None:
    self.teacher.network.load_state_dict(self.student.state_dict())
    args[2].step()


_decay = Training.decay_after_step
without = patched("config.Training.decay_after_step", lambda self, optimizer: None)
everything = patched("config.Training.decays", lambda self, parameter: True)
rate_one = patched("config.Training.decay_after_step", _early)

CASES: list[tuple[str, Callable[[], None], Mutation]] = [
    ("multiplied | not at all", weights_are_multiplied_after_the_step, without),
    ("multiplied | without the learning rate", weights_are_multiplied_after_the_step, rate_one),
    ("weights | everything", biases_and_batch_norm_stay, everything),
    ("penalty | everything", coupled_is_a_gradient_of_the_penalty, everything),
    ("groups | everything", weights_alone_take_two_groups, everything),
    ("schedule | rate of 1", both_groups_follow_the_schedule, rate_one),
    (
        "moved | the first parameter alone",
        it_acts_on_all_that_the_optimiser_moves,
        patched("config.Training.decay_after_step", _first_alone),
    ),
    (
        "teacher | lags",
        the_teacher_follows_the_decayed_weights,
        patched("module.VicinalModule.optimizer_step", _lagging),
    ),
    ("none | some all the same", nothing_decays_without_decay, patched("config.Training.decay_after_step", _always)),
]
IDENTITIES = [pytest.param(check, mutate, id=name) for name, check, mutate in CASES]


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_holds(check: Callable[[], None], mutate: Mutation) -> None:
    check()


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_fails_when_mutated(
    check: Callable[[], None], mutate: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check()


def test_with_weight_norm_the_effective_weight_is_multiplied_and_no_bias_is() -> None:
    """Both factors are weights: the effective weight g v / |v| shrinks by g's factor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = cnn13((3, 32, 32), 4, norm="weight+batch", top_norm="weight")
    before = copy.deepcopy(net)
    settings = training(weight_decay_form="multiplicative", weight_decay_on="weights")
    settings.decay_after_step(settings.optimizer_for(net.parameters()))
    for layer, old in zip(net.modules(), before.modules(), strict=True):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            torch.testing.assert_close(layer.weight, shrunk(old.weight), rtol=1e-5, atol=1e-7)
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter.dim() == 1:
                assert torch.equal(parameter, getattr(old, name))


@pytest.mark.parametrize("settings", [{"weight_decay": -1.0}, {"cycle_half_period": 0.0}, {"cycle_length": 0.0}])
def test_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(settings))} "):
        training(**settings)


def test_a_cycle_repeats_what_lies_before_its_start() -> None:
    with pytest.raises(InputError, match=r"^cycle_start must be at least 0\.2"):
        training(cycle_start=0.1, cycle_length=0.2)
    assert training(cycle_start=0.2, cycle_length=0.1, cycle_half_period=0.3).cycle == (0.3, 0.2, 0.1)
