"""Error under attack: projected gradient descent on the accuracy, within a ball around each input.

The attacker knows the network (white box) and the true labels, and counts every visited point, not the last one only.
A figure after one step says little: a network can hide from single steps. Read it beside one after many steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.networks import EVAL, applied
from vicinal.randomness import generator
from vicinal.settings import check
from vicinal.vicinity import full_precision
from vicinal.vicinity.projected import (
    NormName,
    check_bounds,
    check_norm,
    input_gradient,
    project,
    random_start,
    steepest,
)


@dataclass(frozen=True)
class AttackFigures:
    """What an attack did to a set.

    Args:
        n: number of examples.
        clean_error: share of wrong predictions without the attack, in [0,1].
        error: share of examples that are wrong as they are, or that the attack found a wrong neighbour of, in [0,1].
    """

    n: int
    clean_error: float
    error: float


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient ascent on the cross-entropy of the true class, with restarts.

    The fast gradient (sign) method is ``steps=1, step_size=epsilon, random_start=False``. Inputs that are fooled leave
    the batch, so later steps and restarts cost only what is left; with the same seed and step size, more steps or
    restarts can therefore never lower the error.

    Args:
        norm: of the ball: ``"linf"``, or ``"l2"`` over all entries of an input.
        epsilon: radius, >= 0, in units of the inputs: of pixels in [0,1] for images, whose preprocessing is in the
            network. With 0 nothing is attacked.
        steps: gradient steps, >= 1.
        step_size: length of a step, > 0, in the same norm and units; None for 2.5 epsilon / steps.
        restarts: attempts from different random starts, >= 1.
        random_start: start uniformly in the ball, or at the input itself.
        bounds: smallest and largest value an input may take, (0, 1) for images; None for data without bounds.

    Raises:
        InputError: a setting is out of range.

    Source: Madry et al. 2018 (PGD), Goodfellow et al. 2015 (FGSM). That every visited point counts is our choice.

    >>> network, batch = nn.Linear(1, 2, bias=False), (torch.tensor([[0.1], [0.5]]), torch.tensor([1, 1]))
    >>> network.weight.data = torch.tensor([[-1.0], [1.0]])
    >>> PGD(norm="linf", epsilon=0.2, bounds=None)(network, [batch], seed=0)
    AttackFigures(n=2, clean_error=0.0, error=0.5)
    """

    norm: NormName
    epsilon: float
    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = True
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_norm(self.norm)
        check_bounds(self.bounds)
        check("epsilon", self.epsilon, low=0)
        check("steps", self.steps, low=1)
        check("restarts", self.restarts, low=1)
        if self.step_size is not None:
            check("step_size", self.step_size, above=0)
        if self.restarts > 1 and not self.random_start:
            raise InputError("restarts: without random starts they are all alike; set random_start or restarts=1")

    def __call__(self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], seed: int) -> AttackFigures:
        """Error in eval mode with and without the attack; parameters, ``.grad``, flags and buffers stay as they were.

        Args:
            network: from inputs in data space to logits (B, C), C >= 2.
            batches: inputs and true classes, int64 (B,); the numbering of batches is part of the random starts.
            seed: of the random starts.

        Raises:
            InputError: there are no examples, inputs lie outside of ``bounds``, or no gradient reaches them.
        """
        n, clean_wrong, wrong = 0, 0, 0
        with applied(network, EVAL):
            for index, (x, y) in enumerate(batches):
                before, after = self._fooled(network, full_precision(x.detach()), y, seed, index)
                n, clean_wrong, wrong = n + len(y), clean_wrong + before, wrong + after
        if not n:
            raise InputError("pgd: there are no examples to attack; give at least one batch")
        return AttackFigures(n, clean_wrong / n, wrong / n)

    def _fooled(self, network: nn.Module, x: Tensor, y: Tensor, seed: int, batch: int) -> tuple[int, int]:
        """How many are wrong before and after the attack."""
        if self.bounds is not None and bool(((x < self.bounds[0]) | (x > self.bounds[1])).any()):
            low, high = self.bounds
            raise InputError(f"pgd: inputs lie outside of [{low}, {high}]; give the data's bounds, or bounds=None")
        with torch.no_grad():
            fooled = network(x).argmax(dim=1) != y
        clean = int(fooled.sum())
        for restart in range(self.restarts if self.epsilon > 0 else 0):
            self._attempt(network, x, y, fooled, generator(seed, "pgd", restart, batch))
        return clean, int(fooled.sum())

    def _attempt(self, network: nn.Module, x: Tensor, y: Tensor, fooled: Tensor, draws: torch.Generator) -> None:
        """One attempt on those that are not in ``fooled`` (B,), which is updated in place."""
        point = x
        if self.random_start:
            # Drawn for the whole batch, so that nobody's start depends on who has left.
            start = random_start(x, self.norm, self.epsilon, draws)
            point = project(x, x + start, self.norm, self.epsilon, self.bounds)
        left = (~fooled).nonzero().squeeze(1)
        x, y, point = x[left], y[left], point[left]
        length = 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size
        for step in range(self.steps + 1):
            if not len(left):
                return
            with torch.set_grad_enabled(step < self.steps):
                at = point.detach().requires_grad_(step < self.steps)
                logits = network(at)
                odds = log_odds_against(logits, y)
            stays = logits.argmax(dim=1) == y
            fooled[left[~stays]] = True
            if step < self.steps:
                gradient = input_gradient(odds, at)
                left, x, y, point, gradient = (item[stays] for item in (left, x, y, point, gradient))
                point = project(x, point + length * steepest(gradient, self.norm), self.norm, self.epsilon, self.bounds)


def log_odds_against(logits: Tensor, y: Tensor) -> Tensor:
    """log((1 - p_y) / p_y), (B,), in at least float32, with a graph.

    Cross-entropy is its softplus, an increasing function, so both have the same steepest ascent. But where a prediction
    is sure, 1 - p_y rounds to 0 and the gradient of the cross-entropy loses its direction; this one keeps it.

    Args:
        logits: (B, C), C >= 2.
        y: classes, int64 (B,).

    >>> log_odds_against(torch.tensor([[200.0, 0.0]]), torch.tensor([0]))
    tensor([-200.])
    """
    logits, true = full_precision(logits), y.unsqueeze(1)
    return logits.scatter(1, true, -torch.inf).logsumexp(dim=1) - logits.gather(1, true).squeeze(1)
