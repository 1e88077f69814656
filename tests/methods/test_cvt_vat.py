"""Cross-view training with virtual adversarial noise: the perturbation that the auxiliary heads see; with mutations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.lab import ImageLab, Lab
from torch import nn

from vicinal.methods.cvt import CVT, CVTVAT
from vicinal.vicinity import adversarial_direction, kl

torch.set_num_threads(1)

Mutation = Callable[[pytest.MonkeyPatch], None]


def the_adversary_is_vats(lab: Lab) -> None:
    """|r| = epsilon; r moves the primary head more than a random direction does, and depends on its start (second
    order); without a radius the loss is CVT's to the bit."""
    student = lab.network(double=True, norm="none")
    moved = []
    for seed in (1, 2):
        method = lab.prepare(CVTVAT(epsilon=0.1), student).double()
        passes = lab.record(method, student, seed=seed)
        assert "search" in passes[2].backward
        moved.append((passes[-1].x - lab.u[0]).detach())
    r = moved[0].flatten(1)
    torch.testing.assert_close(r.norm(dim=1), torch.full((8,), 0.1), atol=1e-5, rtol=0)
    assert nn.functional.cosine_similarity(r, moved[1].flatten(1)).min() < 0
    student = lab.network(double=True, norm="none")
    q = student(lab.u[0]).softmax(dim=1).detach()
    draws = [torch.randn(8, *lab.shape, generator=torch.Generator().manual_seed(k)) for k in range(20)]
    random = torch.stack(
        [kl(q, student(lab.u[0] + 0.1 * d / d.flatten(1).norm(dim=1).view(-1, 1, 1, 1))) for d in draws]
    )
    assert (kl(q, student(lab.u[0] + moved[0])) > random.mean(dim=0)).all()
    found, expected = (lab.terms(method, lab.network()) for method in (CVTVAT(epsilon=0), CVT()))
    assert found["consistency"].value.item() == expected["consistency"].value.item()


def first_order(patch: pytest.MonkeyPatch) -> None:
    """Mutation: the search's target is not the network's own prediction, so its gradient does not vanish at r = 0."""
    patch.setattr("vicinal.methods.cvt.full_precision", lambda target: torch.full_like(target, 0.25))


def longer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("vicinal.methods.cvt.adversarial_direction", lambda *a, **k: 2 * adversarial_direction(*a, **k))


MUTATIONS = [pytest.param(longer, id="twice the radius"), pytest.param(first_order, id="first order")]


def test_the_adversary_is_vats() -> None:
    the_adversary_is_vats(ImageLab())


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_the_adversary_fails_when_mutated(mutate: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        the_adversary_is_vats(ImageLab())


def test_regimes() -> None:
    assert (CVT().regime, CVTVAT().regime, CVTVAT(epsilon=0).regime) == (None, "second order", None)
