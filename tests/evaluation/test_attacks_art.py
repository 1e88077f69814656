"""The same attacks by the Adversarial Robustness Toolbox: the same points, or with random starts nearly the same error.

It computes with points in float32. The network here goes on in float64, so that no sign of a gradient hangs on the
order of a sum. Its projected L2 steps are clipped to the data's bounds before they are brought into the ball, and not
after it, which ends elsewhere: they are compared without bounds.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vicinal.evaluation.attacks import FGM, FGSM, PGD, GradientAttack, cross_entropy_against, perturb

CASES: dict[str, GradientAttack] = {
    "fgm": FGM(epsilon=0.6),
    "fgsm": FGSM(epsilon=0.08),
    "pgd-linf": PGD(norm="linf", epsilon=0.08, random_start=False, steps=10),
    "pgd-l2": PGD(norm="l2", epsilon=0.6, random_start=False, steps=10, bounds=None),
}
SEEDS = 40


class Exact(nn.Module):
    """A network in eval mode and double precision, for inputs of any precision."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().double()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.network(x.double())
        return found


@pytest.fixture
def network(trained: nn.Module) -> Exact:
    return Exact(trained)


@pytest.fixture
def images(digits: Any) -> tuple[Tensor, Tensor]:
    """All of them at once."""
    x, y = (torch.cat(parts) for parts in zip(*digits, strict=True))
    return x, y


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """It draws from the global generators."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(before)


def by_art(network: nn.Module, x: Tensor, y: Tensor, attack: GradientAttack, seed: int = 0) -> Tensor:
    pytest.importorskip("art")
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        network,
        loss=nn.CrossEntropyLoss(reduction="sum"),  # of a mean, it would take gradients for zero
        input_shape=tuple(x.shape[1:]),
        nb_classes=10,
        clip_values=attack.bounds,
        device_type="cpu",
    )
    settings: Any = {"norm": np.inf if attack.norm == "linf" else 2, "eps": attack.epsilon, "batch_size": len(x)}
    if isinstance(attack, PGD):
        settings |= {"eps_step": attack.length, "max_iter": attack.steps, "num_random_init": int(attack.random_start)}
        found: Any = ProjectedGradientDescentPyTorch(wrapped, **settings, verbose=False)
    else:
        found = FastGradientMethod(wrapped, **settings)
    with seeded(seed):
        return torch.from_numpy(found.generate(x.numpy(), y.numpy()))


def share_wrong(network: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((network(x).argmax(dim=1) != y).double().mean())


@pytest.mark.parametrize("name", CASES)
def test_deterministic_attacks_find_the_same_points(name: str, network: Exact, images: Any) -> None:
    attack = CASES[name]
    theirs = by_art(network, *images, attack)
    ours = perturb(network, *images, attack, seed=0, count="last", loss=cross_entropy_against)
    torch.testing.assert_close(ours.x, theirs, rtol=0, atol=1e-5)
    error = float(ours.wrong.double().mean())
    assert error == share_wrong(network, theirs, images[1])
    assert 0.05 < error < 0.95
    other = perturb(network, *images, replace(attack, epsilon=1.02 * attack.epsilon), seed=0, count="last").x
    assert not torch.allclose(other, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_find_nearly_the_same_error(norm: Any, network: Exact, images: Any) -> None:
    """Means over seeds: one of 300 digits moves an error by a third of a point."""
    bounds = (0.0, 1.0) if norm == "linf" else None
    attack = PGD(norm=norm, epsilon=0.08 if norm == "linf" else 0.6, steps=20, bounds=bounds)
    theirs = [share_wrong(network, by_art(network, *images, attack, seed), images[1]) for seed in range(SEEDS)]
    ours = [float(perturb(network, *images, attack, seed=s, count="last").wrong.double().mean()) for s in range(SEEDS)]
    assert abs(sum(theirs) - sum(ours)) / SEEDS <= 0.005
    weaker = replace(attack, epsilon=0.9 * attack.epsilon)
    assert sum(theirs) / SEEDS - float(perturb(network, *images, weaker, seed=0).wrong.double().mean()) > 0.03
