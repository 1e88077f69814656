"""Attacks of the evaluation as the theory takes them: losses within balls of each example's own radius."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.evaluation import APGD, FGM, GradientAttack, perturb
from vicinal.theory import Trained, adv_surrogate
from vicinal.theory.exact import Function
from vicinal.theory.sampled import with_error

MULTIPLES = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Of each example's own radius, where attacks look."""
STEPS = 20
"""Of the iterated attack."""


class _Around(nn.Module):
    """From displacements in units of each example's radius to logits, so that one attack has a radius for each."""

    def __init__(self, f: Function, x: Tensor, eta: Tensor) -> None:
        super().__init__()
        self.f, self.x, self.eta = f, x, eta.view(-1, *[1] * (x.dim() - 1))

    def forward(self, u: Tensor) -> Tensor:
        """Logits (n, C) for displacements (n, ...)."""
        return self.f(self.x + self.eta * u)


class Attacked:
    """An attack as `vicinal.theory.Attack`: the losses that it reaches in L2 balls of their own radii.

    It starts at the examples themselves, nothing is clipped, and the loss is the cross-entropy of the true class.

    Args:
        kind: the attack: `FGM`, or one that takes `STEPS` steps.
    """

    def __init__(self, kind: type[GradientAttack]) -> None:
        settings: dict[str, Any] = {} if kind is FGM else {"norm": "l2", "steps": STEPS, "random_start": False}
        self.settings = kind(epsilon=1.0, bounds=None, **settings)

    def __call__(self, f: Function, x: Tensor, y: Tensor, eta: Tensor) -> Tensor:
        """Losses (n,) from logits as a function, inputs (n, ...), classes int64 (n,) and radii (n,)."""
        around = _Around(f, x, eta)
        found = perturb(around, torch.zeros_like(x), y, self.settings, seed=0, count="last")
        with torch.no_grad():
            return F.cross_entropy(around(found.x), y, reduction="none")


def loss_curve(model: Trained, l2: Tensor) -> dict[str, Any]:
    """Mean losses within `MULTIPLES` of each example's own radius: the surrogate's, and what attacks find.

    Args:
        model: network and sample.
        l2: the radii (n,), in units of the inputs.

    Returns:
        ``n`` examples, ``multiple``, and as many means for ``surrogate``, ``fgm`` and ``apgd``, each with its
        ``_standard_error`` over the examples.
    """
    x, attacks = model.own, {"fgm": Attacked(FGM), "apgd": Attacked(APGD)}
    found = []
    for multiple in MULTIPLES:
        eta = multiple * l2
        point = with_error("surrogate", adv_surrogate(model.log_odds, model.x, model.ones, eta))
        for name, attack in attacks.items():
            point |= with_error(name, attack(model.logits, x, model.y, eta.to(x)))
        found.append(point)
    return {"n": len(x), "multiple": list(MULTIPLES)} | {key: [point[key] for point in found] for key in found[0]}
