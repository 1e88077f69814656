"""Cross-view training: who learns from whom, one position per head, closed forms; each check fails when mutated."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.lab import ImageLab, Lab
from support.properties import PROPERTIES, ledger_is, passes_are_declared
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.methods import Context, Method, Supervised
from vicinal.methods.cvt import CVT, CVTVAT
from vicinal.networks import TRAIN, Classifier, Identity, cnn13
from vicinal.vicinity import entropy, kl

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

ROWS = [
    (CVT(), "f+2F+b+B", "f* F F*"),
    (CVT(over_heads="sum", distance="ce"), "f+2F+b+B", "f* F F*"),
    (CVTVAT(), "f+3F+b+B+X", "f* F F F*"),
    (CVTVAT(iterations=3, space="input"), "f+5F+b+B+3X", "f* F F F F F*"),
    (CVTVAT(epsilon=0), "f+2F+b+B", "f* F F*"),
]


@pytest.fixture
def lab() -> Lab:
    return ImageLab()


def primary_head_gets_no_unlabelled_gradient(lab: Lab) -> None:
    """Exactly 0, while auxiliary heads and body get one; labels reach the primary head and no auxiliary one."""
    for method in (CVT(), CVTVAT()):
        student = lab.network(dropout=0.5)
        terms = lab.loss(method, student)

        def gradient(name: str, module: nn.Module, terms: Any = terms) -> float:
            found = torch.autograd.grad(
                terms[name].value, list(module.parameters()), retain_graph=True, allow_unused=True
            )
            return max(0.0 if part is None else float(part.abs().max()) for part in found)

        assert gradient("consistency", student.head) == 0.0
        assert gradient("consistency", student.body) > 0
        assert all(gradient("consistency", head) > 0 for head in method.heads)
        assert gradient("supervised", student.head) > 0
        assert gradient("supervised", method.heads) == 0.0


def teachers_are_constants_and_come_first(lab: Lab) -> None:
    """The pass behind the labelled one is the teacher's: in eval mode, without a gradient; the last is the heads'."""
    modes: list[bool] = []
    student = lab.network(dropout=0.5)
    method = lab.prepare(CVT(), student)
    student.register_forward_pre_hook(lambda network, _: modes.append(network.training))
    passes = lab.record(method, student)
    assert [item.backward for item in passes] == [["loss"], [], ["loss"]]
    assert modes == [True, False, True]


def constant_maps_and_tied_heads_give_nothing(lab: Lab) -> None:
    """Images of one colour through 1x1 convolutions; with heads that are the primary one, each view sees all."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 5, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    student = Classifier(Identity(), body, nn.Linear(5, 4), feature_dim=5, classes=4)
    lab.u = tuple(torch.randn(8, 1, 1, 1).expand(8, *lab.shape) for _ in range(2))
    for settings in ({}, {"over_heads": "sum"}):
        method = lab.prepare(CVT(**settings), student)
        assert len(method.heads) == 36
        tie(method, student)
        value = lab.loss(method, student)["consistency"].value
        assert value.item() == pytest.approx(0, abs=1e-6)
        assert lab.gradient(value, student).abs().max() < 1e-6
    lab.u = tuple(torch.randn(8, *lab.shape) for _ in range(2))
    assert lab.loss(method, student)["consistency"].value.item() > 1e-3  # a map that is not constant


def tie(method: Any, student: Any) -> None:
    for head in method.heads:
        head.load_state_dict(student.head.state_dict())


def thirty_six_heads_each_see_one_position(lab: Lab) -> None:
    """CNN-13 on 32x32 images: a 6x6 map; head j's gradient is zero but at position j."""
    torch.manual_seed(0)
    student = cnn13((3, 32, 32), 10)
    method = CVT()
    method.prepare(Context(student, (3, 32, 32), 40))
    assert len(method.heads) == 36
    feature_map = torch.randn(2, 128, 6, 6, requires_grad=True)
    logits = method.auxiliary(feature_map)
    assert logits.shape == (36, 2, 10)
    for j in range(36):
        (gradient,) = torch.autograd.grad(logits[j].sum(), feature_map, retain_graph=True)
        touched = gradient.abs().amax(dim=(0, 1)).flatten().nonzero().flatten().tolist()
        assert touched == [j]


def stacked_heads_are_their_heads(lab: Lab) -> None:
    """One batched product gives what each head gives for its column, also where heads cannot be stacked."""
    method = lab.prepare(CVT(), lab.network())
    feature_map = torch.randn(8, 6, 3, 3)
    expected = [
        method.heads[3 * row + column](feature_map[:, :, row, column]) for row in range(3) for column in range(3)
    ]
    torch.testing.assert_close(method.auxiliary(feature_map), torch.stack(expected))
    plain = list(method.heads)
    method.heads = nn.ModuleList(nn.Sequential(head) for head in plain)
    torch.testing.assert_close(method.auxiliary(feature_map), torch.stack(expected))


def reductions_and_distances_agree(lab: Lab) -> None:
    """Sum = P x mean; cross-entropy = KL + H(q), with the same gradient."""
    student = lab.network()
    found, gradients = {}, {}
    for over_heads in ("mean", "sum"):
        for name in ("kl", "ce"):
            same = lab.network()
            method = CVT(over_heads=over_heads, distance=name)
            value = lab.loss(method, same)["consistency"].value
            found[over_heads, name], gradients[over_heads, name] = value.detach(), lab.gradient(value, same)
    student(lab.x)  # the labelled pass moves the running statistics that the teacher uses
    q_entropy = entropy(student.eval()(lab.u[0])).mean().detach()
    torch.testing.assert_close(found["sum", "kl"], 9 * found["mean", "kl"])
    torch.testing.assert_close(found["mean", "ce"], found["mean", "kl"] + q_entropy)
    torch.testing.assert_close(gradients["mean", "ce"], gradients["mean", "kl"])


def without_weight_it_is_supervised(lab: Lab) -> None:
    for method in (CVT(weight=0.0), CVTVAT(weight=0.0)):
        student, other = lab.network(dropout=0.5), lab.network(dropout=0.5)
        found = lab.gradient(lab.total(lab.loss(method, student)), student)
        assert torch.equal(found, lab.gradient(lab.total(lab.loss(Supervised(), other)), other))


def duplicates_change_nothing(lab: Lab) -> None:
    """Unlabelled examples given twice leave the term as it is."""
    method = CVT()
    once = lab.terms(method, lab.network())["consistency"].value.detach()
    lab.u = tuple(view.repeat(2, 1, 1, 1) for view in lab.u)
    torch.testing.assert_close(lab.terms(method, lab.network())["consistency"].value.detach(), once)


def primary_among_the_students(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: CVT, context: Context) -> None:
        self.heads = nn.ModuleList([context.network.head] * 9)

    patch.setattr(CVT, "prepare", wrong)


def teacher_with_a_graph(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "vicinal.methods.cvt.torch",
        SimpleNamespace(no_grad=torch.enable_grad, zeros=torch.zeros, stack=torch.stack, baddbmm=torch.baddbmm),
    )


def policy(name: str, wrong: Any) -> Mutation:
    return lambda patch: patch.setattr(f"vicinal.methods.cvt.{name}", wrong)


def auxiliary(wrong: Callable[[Callable[[CVT, Tensor], Tensor]], Any]) -> Mutation:
    return lambda patch: patch.setattr(CVT, "auxiliary", wrong(CVT.auxiliary))


def untied(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(globals(), "tie", lambda method, student: None)


def loss(change: Callable[[CVT, Any], Any]) -> Mutation:
    """The mutation of the terms."""
    original = CVT.loss
    return lambda patch: patch.setattr(CVT, "loss", lambda self, step: change(self, original(self, step)))


def scaled(self: CVT, terms: Any) -> Any:
    term = terms["consistency"]
    return {**terms, "consistency": term._replace(value=term.value * 2 if self.over_heads == "sum" else term.value)}


def weightless(self: CVT, terms: Any) -> Any:
    return {name: term._replace(weight=max(term.weight, 1e-3)) for name, term in terms.items()}


def half_hearted(patch: pytest.MonkeyPatch) -> None:
    """Mutation: a sum over the batch."""
    patch.setattr("vicinal.methods.cvt.kl", lambda target, logits: kl(target, logits) * len(target))


CHECKS = [
    pytest.param(
        primary_head_gets_no_unlabelled_gradient, primary_among_the_students, id="primary head | is a student"
    ),
    pytest.param(primary_head_gets_no_unlabelled_gradient, teacher_with_a_graph, id="primary head | as teacher"),
    pytest.param(teachers_are_constants_and_come_first, teacher_with_a_graph, id="teacher | with a graph"),
    pytest.param(teachers_are_constants_and_come_first, policy("EVAL", TRAIN), id="teacher | with dropout"),
    pytest.param(constant_maps_and_tied_heads_give_nothing, untied, id="constant map | heads not tied"),
    pytest.param(
        thirty_six_heads_each_see_one_position,
        auxiliary(lambda right: lambda self, m: right(self, m + m.mean(dim=(2, 3), keepdim=True))),
        id="one position | and the mean",
    ),
    pytest.param(
        stacked_heads_are_their_heads,
        auxiliary(lambda right: lambda self, m: right(self, m.transpose(2, 3))),
        id="stacked | columns before rows",
    ),
    pytest.param(reductions_and_distances_agree, loss(scaled), id="sum | twice"),
    pytest.param(without_weight_it_is_supervised, loss(weightless), id="supervised limit | weight > 0"),
    pytest.param(duplicates_change_nothing, half_hearted, id="duplicates | a sum"),
]


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_holds(check: Check, mutate: Mutation, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_fails_when_mutated(check: Check, mutate: Mutation, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)


@pytest.mark.parametrize("kind", [CVT, CVTVAT])
@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(holds: Callable[[Lab, Method], None], kind: type[Method], lab: Lab) -> None:
    holds(lab, kind())


@pytest.mark.parametrize(("method", "cost", "row"), ROWS)
def test_ledger_and_cost(method: Method, cost: str, row: str, lab: Lab) -> None:
    assert str(method.passes()) == cost
    passes_are_declared(lab, method)
    ledger_is(lab, method, row)


def test_ledger_sees_a_teacher_that_updates(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    policy("EVAL", TRAIN)(monkeypatch)
    with pytest.raises(AssertionError):
        ledger_is(lab, CVT(), "f* F F*")


def test_networks_without_a_map_are_refused() -> None:
    lab = Lab()
    with pytest.raises(InputError, match="feature map"):
        lab.prepare(CVT(), lab.network())


def test_preparing_leaves_the_network_alone(lab: Lab) -> None:
    student, plain = lab.network(dropout=0.5), lab.network(dropout=0.5)
    method = lab.prepare(CVT(), student)
    assert student.training
    for found, expected in zip(student.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(found, expected)
    assert not torch.equal(method.heads[0].weight, method.heads[1].weight)
    assert len(list(method.trained())) == 18


def test_heads_of_normalised_logits(lab: Lab) -> None:
    """CNN-13 with batch norm on its logits has heads of that kind."""
    torch.manual_seed(0)
    method = CVT()
    method.prepare(Context(cnn13((1, 12, 12), 4, top_norm="batch"), (1, 12, 12), 40))
    assert len(method.heads) == 1
    assert any(isinstance(module, nn.BatchNorm1d) for module in method.heads.modules())
    assert method.auxiliary(torch.randn(5, 128, 1, 1)).mean(dim=1).abs().max() < 1e-5
