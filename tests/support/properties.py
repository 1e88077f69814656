"""What must hold of every method: functions of a lab and a method that raise AssertionError where it does not.

Each returns nothing. They are applied to every method of the package, to methods that tests bring along, and to
mutations under which they must fail.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import nn

from support.lab import Lab
from support.recorder import Pass
from vicinal.methods import Cost, Method
from vicinal.settings import settings_of


def networks(lab: Lab, method: Method, **settings: Any) -> tuple[nn.Module, nn.Module | None]:
    """A student, and a teacher if the method asks for one."""
    student, teacher = lab.pair(**settings)
    return student, teacher if method.needs.teacher else None


def made(lab: Lab, method: Method, *, dropout: float = 0.5, **step: Any) -> Cost:
    """The passes of one step, as they ran."""
    passes = lab.record(method, *networks(lab, method, dropout=dropout), **step)
    forward = Counter((item.network, item.batch) for item in passes)
    backward = Counter((phase, item.batch) for item in passes for phase in item.backward)
    assert not any(item.backward for item in passes if item.network == "teacher"), "a graph to the teacher"
    return Cost(
        f=forward["student", "f"],
        F=forward["student", "F"],
        T=forward["teacher", "F"],
        t=forward["teacher", "f"],
        b=backward["loss", "f"],
        B=backward["loss", "F"],
        X=backward["search", "F"],
        x=backward["search", "f"],
        h=forward["student", "h"],
        e=forward["second", "e"],
        d=forward["second", "d"],
        y=backward["search", "d"] + backward["loss", "d"],
    )


def passes_are_declared(lab: Lab, method: Method, **step: Any) -> None:
    """`Method.passes` is what a step runs."""
    assert made(lab, method, **step) == method.passes()


def rows(passes: list[Pass]) -> tuple[str, str]:
    """Passes of student and teacher in their order; a star where running statistics moved."""
    student, teacher = (
        " ".join(item.batch + "*" * item.updated for item in passes if item.network == name)
        for name in ("student", "teacher")
    )
    return student, teacher


def ledger_is(lab: Lab, method: Method, student: str, teacher: str = "", **step: Any) -> None:
    """The ledger has these rows, such as ``"f* F F*"``; each star is one more batch in the counters of batch norm."""
    pair = networks(lab, method, dropout=0.5)
    assert rows(lab.record(method, *pair, **step)) == (student, teacher)
    for network, row in zip(pair, (student, teacher), strict=True):
        if network is not None:
            named = dict(network.body.named_buffers())
            counters = {int(buffer) for name, buffer in named.items() if name.endswith("num_batches_tracked")}
            assert counters == {row.count("*")}


def terms_are_finite(lab: Lab, method: Method) -> None:
    """Terms and gradients, also of networks that are certain: probabilities of exactly 0 and 1."""
    for scale in (1.0, 100.0):
        student, teacher = lab.pair(dropout=0.5)
        for network in (student, teacher):
            network.head.weight.data *= scale
        terms = lab.loss(method, student, teacher if method.needs.teacher else None)
        assert all(term.value.dim() == 0 and term.value.isfinite() for term in terms.values()), terms
        assert lab.gradient(lab.total(terms), student).isfinite().all()


def unlabelled_data_moves_the_gradient(lab: Lab, method: Method) -> None:
    """If the method asks for it, and else not."""
    student, teacher = networks(lab, method)
    student.head.weight.data *= 30  # some predictions are certain: there are thresholds
    method = copy.deepcopy(method)
    gradients = []
    for u in (lab.u, lab.other_u):
        same = copy.deepcopy((student, teacher))
        lab.prepare(method, student, again=True)
        if method.needs.views:
            lab.loss(method, *copy.deepcopy(same), u=u)  # a bank of predictions is empty in the first step
        gradients.append(lab.gradient(lab.total(lab.loss(method, *same, u=u)), same[0]))
    assert torch.equal(*gradients) == (method.needs.views + method.needs.strong == 0)


def teachers_get_no_gradient(lab: Lab, method: Method) -> None:
    """Even if somebody lets their parameters ask for one; the student's body gets one."""
    student, teacher = lab.pair(dropout=0.5)
    lab.total(lab.loss(method, student, teacher.requires_grad_())).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())


def perturbations_are_constants(lab: Lab, method: Method) -> None:
    """What goes into the student carries a graph in searches alone, and no pass of the loss goes through those."""
    for item in lab.record(method, *networks(lab, method, dropout=0.5)):
        if item.batch in "fF":
            assert item.x.requires_grad == ("search" in item.backward), item
        assert not {"search", "loss"} <= set(item.backward), item


def nothing_else_changes(lab: Lab, method: Method) -> None:
    """Flags of all modules, parameters and their gradients are what they were before the loss."""
    student, teacher = lab.pair(dropout=0.5)
    next(module for module in student.modules() if isinstance(module, nn.Dropout)).eval()
    before = copy.deepcopy((student, teacher))
    for network in (student, teacher):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, 3)
    lab.loss(method, student, teacher if method.needs.teacher else None)
    for network, old in zip((student, teacher), before, strict=True):
        assert _flags(network) == _flags(old)
        for parameter, value in zip(network.parameters(), old.parameters(), strict=True):
            assert torch.equal(parameter, value)
            assert parameter.requires_grad
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, torch.full_like(parameter, 3))


def draws_are_the_steps_own(lab: Lab, method: Method) -> None:
    """The same step twice gives the same terms, with no draw from the global generator."""
    found = []
    for _ in range(2):
        student, teacher = networks(lab, method)
        lab.prepare(method, student, again=True)
        state = torch.random.get_rng_state()
        terms = method.loss(lab.step(student, teacher, views=method.needs.views, strong=method.needs.strong))
        assert torch.equal(torch.random.get_rng_state(), state), "a draw from the global generator"
        found.append([(name, term.value.item(), term.weight) for name, term in terms.items()])
    assert found[0] == found[1]


def settings_are_explained(lab: Lab, method: Method) -> None:
    """Each has a line in the docstring and an origin; the first line of the docstring is an idea; a source is named."""
    names = {setting.name for setting in settings_of(type(method))}
    assert [setting.name for setting in settings_of(type(method)) if not setting.help] == []
    assert names == set(method.origins), "each setting needs an origin"
    assert set(method.origins.values()) <= {"paper", "official-code", "ours"}
    assert (type(method).__doc__ or "").splitlines()[0].endswith(".")
    assert type(method).source
    assert type(method)().passes() == type(method).cost


PROPERTIES = (
    passes_are_declared,
    terms_are_finite,
    unlabelled_data_moves_the_gradient,
    teachers_get_no_gradient,
    perturbations_are_constants,
    nothing_else_changes,
    draws_are_the_steps_own,
    settings_are_explained,
)


def _flags(network: nn.Module) -> list[Any]:
    names = ("training", "momentum", "track_running_stats")
    return [[getattr(module, name, None) for name in names] for module in network.modules()]
