"""Mixup and the smoothness of the gradient: ERM, mixup, and mixup with a Lipschitz penalty, on two moons.

    python benchmarks/theory_smoothness.py --output results/theory-smoothness

What mixup penalises along chords between examples is a lower estimate of the Lipschitz constant of the gradient (or
Jacobian) of f; it says nothing of the slope, since every affine f has no mixing residual. Two hypotheses, none of them
a theorem, for networks with a smooth activation and about the same error: with mixup the mixup gap and the Hessian's
norm are lower (H4); the slope is lower with the penalty only (H5). Signs are counted over seeds, whatever they are.

Trainings see the same points, start from the same weights, and take the same number of steps over the whole sample;
all figures are of logits, over the same training points, in units of the inputs, in float64.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from theory_cost import provenance, show
from torch import Tensor
from torch.nn import functional as F

from vicinal.data import load
from vicinal.evaluation.curvature import hessian_norm, mixup_gap
from vicinal.evaluation.smoothness import jacobian_norm
from vicinal.networks import Classifier, mlp
from vicinal.randomness import generator, seed_of
from vicinal.reporting import Table
from vicinal.reporting.tables import mean_and_std
from vicinal.settings import Choice
from vicinal.vicinity import (
    LipschitzSettings,
    adversarial_neighbour,
    cross_entropy,
    draw_mixing,
    lipschitz_penalty,
    mix,
)

WAYS = ("erm", "mixup", "mixup + penalty")
FIGURES: Mapping[str, str] = {
    "error": "test error",
    "gap_mean": "mixup gap, mean",
    "gap": "mixup gap, max",
    "hessian_mean": "Hessian norm, mean",
    "hessian": "Hessian norm, max",
    "slope_mean": "Jacobian norm, mean",
    "slope": "Jacobian norm, max",
    "bent": "Hessian over Jacobian, means",
}
CLAIMS: Mapping[str, tuple[str, str, str]] = {
    "H4, gap": ("gap", "mixup", "erm"),
    "H4, Hessian": ("hessian", "mixup", "erm"),
    "beside H4, whatever the scale of the logits: Hessian over Jacobian": ("bent", "mixup", "erm"),
    "H5, slope with the penalty": ("slope", "mixup + penalty", "mixup"),
    "H5, slope with mixup alone (expected: not lower)": ("slope", "mixup", "erm"),
}
"""A figure, and the way of training that is said to have it lower than the other."""

# The L2 quotient of logits, from where it is taken: a metric, with a gradient through both ends.
SEARCH = LipschitzSettings(
    d_y="l2_logits",
    xi=0.1,
    epsilon_min=0.1,
    epsilon_max=0.1,
    iterations=1,
    detach_clean=False,
    direction="gaussian",
)


def trained(
    way: str, x: Tensor, y: Tensor, *, alpha: float, weight: float, steps: int, activation: Any, seed: int
) -> Classifier:
    """A network trained in one of the ways, in eval mode and float64."""
    torch.manual_seed(seed_of(seed, "theory smoothness"))
    network = mlp((2,), 2, hidden=[64, 64], activation=activation).double()
    labels = F.one_hot(y, 2).double()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        points, wanted = x, labels
        if way != "erm":
            lam, partner = draw_mixing(len(x), alpha, generator(seed, "mixing", step), per="sample")
            points, wanted = mix(x, x[partner], lam), mix(labels, labels[partner], lam)
        loss = cross_entropy(wanted, network(points)).mean()
        if way == "mixup + penalty":
            clean = network(x)
            draws = generator(seed, "penalty", step)
            r = adversarial_neighbour(network, x, SEARCH, draws, clean_logits=clean.detach()).r
            loss = loss + weight * lipschitz_penalty(clean, network(x + r), r, SEARCH).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def measured(network: Classifier, x: Tensor, y: Tensor, test: tuple[Tensor, Tensor], seed: int) -> dict[str, float]:
    """All figures of a network."""
    with torch.no_grad():
        error = float((network(test[0]).argmax(dim=1) != test[1]).double().mean())
    batches = [(x, y)]
    gap = mixup_gap(network, batches, lambdas=(0.25, 0.5, 0.75), neighbours=8, seed=seed)
    hessian = hessian_norm(network, batches, seed=seed)
    slope = jacobian_norm(network, batches, seed=seed)
    return {
        "error": error,
        "gap_mean": gap.mean,
        "gap": gap.largest,
        "hessian_mean": hessian.mean,
        "hessian": hessian.largest,
        "slope_mean": slope.mean,
        "slope": slope.largest,
        "bent": hessian.mean / slope.mean,
    }


def one_seed(seed: int, *, points: int, settings: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Figures of each way of training on points of one seed."""
    data = load(Choice("two_moons", {"n": points, "noise": 0.1, "test_size": 1000, "data_seed": seed}))
    assert data.test is not None
    x, y = data.train.x[torch.arange(points)].double(), data.train.y
    mean = x.mean(dim=0)
    x, test = x - mean, (data.test.x[torch.arange(1000)].double() - mean, data.test.y)
    return {way: measured(trained(way, x, y, seed=seed, **settings), x, y, test, seed) for way in WAYS}


def signs(runs: list[dict[str, dict[str, float]]]) -> dict[str, str]:
    """On how many seeds each claim is seen, and the median ratio."""
    found = {}
    for claim, (figure, lower, higher) in CLAIMS.items():
        ratios = [run[lower][figure] / run[higher][figure] for run in runs]
        below = sum(ratio < 1 for ratio in ratios)
        found[claim] = f"lower on {below} of {len(runs)} seeds, median ratio {statistics.median(ratios):.2f}"
    return found


def table(runs: list[dict[str, dict[str, float]]], described: Mapping[str, Any]) -> Table:
    """Mean and standard deviation over seeds of each figure."""

    def cell(way: str, figure: str) -> str:
        mean, std = mean_and_std([run[way][figure] for run in runs])
        return f"{mean:.3g} ± {std:.2g}"

    errors = [statistics.mean(run[way]["error"] for run in runs) for way in WAYS]
    rows = tuple((way, *(cell(way, figure) for figure in FIGURES)) for way in WAYS)
    computer = described["machine"]
    notes = (
        *(f"{claim}: {text}." for claim, text in described["signs"].items()),
        "lower estimates of Lipschitz constants over the training points (gap: chords between them) of the logits, of "
        "the Jacobian (gap, all logits) and of the gradient of each example's own logit (Hessian).",
        f"test errors are within {100 * (max(errors) - min(errors)):.2g} points of each other; where they are far "
        "apart the other figures do not compare.",
        f"settings: {described['settings']}, {described['points']} points; mean and standard deviation over "
        f"{len(runs)} seeds.",
        f"{computer['processor']}, torch {computer['torch']}, commit {described['commit']}; {described['command']}",
    )
    return Table("Smoothness: ERM, mixup, mixup with a Lipschitz penalty", ("", *FIGURES.values()), rows, notes)


def main() -> None:
    """Train, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds and few steps, to see that it runs")
    parser.add_argument("--seeds", type=int, default=5, help="at least 3 for a figure that counts")
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--weight", type=float, default=0.01, help="of the penalty")
    parser.add_argument("--activation", default="silu", choices=("softplus", "tanh", "gelu", "silu"))
    parser.add_argument("--output", type=Path, help="folder for table.md and results.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = {
        "alpha": arguments.alpha,
        "weight": arguments.weight,
        "steps": 40 if arguments.quick else arguments.steps,
        "activation": arguments.activation,
    }
    points = 60 if arguments.quick else arguments.points
    runs = []
    for seed in range(2 if arguments.quick else arguments.seeds):
        runs.append(one_seed(seed, points=points, settings=settings))
        print(f"seed {seed}", file=sys.stderr, flush=True)
    described = {
        **provenance(),
        "points": points,
        "settings": settings,
        "signs": signs(runs),
    }
    show(table(runs, described), {**described, "runs": runs}, arguments.output)


if __name__ == "__main__":
    main()
