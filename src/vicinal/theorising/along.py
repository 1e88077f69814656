"""A run trained once more, to see its mixup loss and its expansions on the way."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vicinal.assembling import Assembled
from vicinal.fitting import replay
from vicinal.runs import Run
from vicinal.theory import SpaceName, Trained, expansion_figures, mixup_loss_figures, mixup_radius
from vicinal.theory.sampled import losses_and_errors, with_error

LOOKS = 9
"""Looks at the network, besides the one before the first step."""
BUDGET = 2e9
"""Floating-point operations up to which a part of a look is exact."""
_TOLD = ("loss", "loss_standard_error", "error", "error_standard_error")


@dataclass(frozen=True)
class Looks:
    """What is looked at along a training, and how.

    Args:
        x: inputs in data space.
        y: classes, int64 (n,).
        held_out: other inputs and classes, or None.
        space: where they are mixed.
        alpha: of the mixing law.
        seed: of all draws, the same at each look, so that differences are the network's.
    """

    x: Tensor
    y: Tensor
    held_out: tuple[Tensor, Tensor] | None
    space: SpaceName
    alpha: float
    seed: int

    def look(self, step: int, network: nn.Module) -> dict[str, Any]:
        """The mixup loss and its expansions, the cosines, and losses and errors, with standard errors.

        Those of the mixup loss and its expansions are of random draws, 0 without any; the others are over examples.
        """
        model = Trained(network, self.x, self.y, space=self.space)
        mixup = mixup_loss_figures(model, self.alpha, seed=self.seed, permutations=64, budget=BUDGET)
        around, shrunk = expansion_figures(model, self.alpha, mixup, seed=self.seed, probes=8, budget=BUDGET)
        cosine = mixup_radius(model.log_odds, model.x, model.ones, self.alpha).cosine
        parts: dict[str, dict[str, Any]] = {"train": losses_and_errors(model, model.x, model.y), "held_out": {}}
        if self.held_out is not None:
            parts["held_out"] = losses_and_errors(model, model.entered(self.held_out[0]), self.held_out[1])
        return {
            "step": step,
            "mixup": mixup["value"],
            "mixup_standard_error": mixup["standard_error"],
            "around": around["total"],
            "around_standard_error": around["standard_error"],
            "shrunk": shrunk["total"],
            "shrunk_standard_error": shrunk["standard_error"],
            **with_error("cosine_mean", cosine),
            "cosine_min": float(cosine.min()),
            **{f"{part}_{name}": found.get(name) for part, found in parts.items() for name in _TOLD},
        }


def look_steps(steps: int) -> list[int]:
    """When to look: before the first step, and at ever larger distances until the end.

    >>> look_steps(1000)
    [0, 1, 2, 5, 10, 22, 46, 100, 215, 464, 1000]
    >>> look_steps(3)
    [0, 1, 2, 3]
    """
    return sorted({0, *(round(steps ** (k / LOOKS)) for k in range(LOOKS + 1))})


def along(run: Run, parts: Assembled, looks: Looks, *, progress: bool = False) -> dict[str, Any]:
    """Train a run once more, in a temporary folder, and look at its network on the way; the run is only read.

    Args:
        run: the run.
        parts: its parts.
        looks: what to look at.
        progress: show a progress bar on standard error.

    Returns:
        ``n`` (examples that were looked at), ``looks`` (in order), ``same_weights`` (whether the weights at the end are
        the run's, to the bit), ``largest_difference`` of a weight, and ``seconds``.

    Raises:
        InputError: the run cannot be trained here.
        KeyboardInterrupt: stopped.
    """
    started = time.perf_counter()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="vicinal-") as folder:
        again = replay(
            run,
            folder,
            look=lambda step, network: found.append(looks.look(step, network)),
            steps=look_steps(parts.experiment.training.steps),
            dataset=parts.dataset,
            progress=progress,
        )
        weights = again.network("last").network.state_dict()
    apart = [
        float((weights[name].double() - value.double()).abs().max())
        for name, value in run.network("last").network.state_dict().items()
        if not torch.equal(weights[name], value)
    ]
    return {
        "n": len(looks.y),
        "looks": found,
        "same_weights": not apart,
        "largest_difference": max(apart, default=0.0),
        "seconds": round(time.perf_counter() - started, 2),
    }
