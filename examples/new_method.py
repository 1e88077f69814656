"""A method of one's own in one file, and the comparison that it is made for.

    python examples/new_method.py                       # three methods, two seeds, one table: a minute
    python examples/new_method.py --steps 100 --seeds 1 # a quick look

The command line takes it as it is, from the folder in which it lies::

    vicinal methods new_method:NoiseConsistency
    vicinal fit digits --method new_method:NoiseConsistency --labels 50 --output ../runs/mine
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from vicinal.methods import Cost, Method, Needs, Origin, Step, Term
from vicinal.vicinity import cross_entropy, kl


class NoiseConsistency(Method):
    """Keep the prediction under Gaussian noise on the input.

    With n_i ~ N(0, sigma^2) for each unlabelled example, p(u) = softmax f(u) and sg the stop-gradient::

        L = mean_i CE(y_i, f(x_i)) + weight mean_i KL( sg p(u_i) || p(u_i + n_i) )

    Args:
        sigma: standard deviation of the noise, in units of the inputs.
        weight: weight of the consistency term.
    """

    needs: ClassVar[Needs] = Needs(views=1)
    cost: ClassVar[Cost] = Cost(f=1, F=2, b=1, B=1)
    source: ClassVar[str] = "ours"
    origins: ClassVar[Mapping[str, Origin]] = {"sigma": "ours", "weight": "ours"}

    sigma: float = 0.3
    weight: float = 3.0

    def loss(self, step: Step) -> dict[str, Term]:
        supervised = cross_entropy(step.y, step.student(step.x)).mean()
        u = step.u[0]
        with torch.no_grad():
            target = step.student(u).softmax(dim=1)
        noise = torch.randn(u.shape, generator=step.generator("noise")).to(u)
        smoothness = kl(target, step.student(u + self.sigma * noise)).mean()
        return {"supervised": Term(supervised), "smoothness": Term(smoothness, self.weight)}


def main(words: Sequence[str] | None = None) -> int:
    """Train the method and two that are known, on the same splits, and print the table."""
    parser = argparse.ArgumentParser(description="Compare NoiseConsistency with two known methods on digits.")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--store", default="runs", help="folder of the runs; a finished one never runs again")
    given = parser.parse_args(words)

    from vicinal.cli.output import show
    from vicinal.grid import Grid, run_grid
    from vicinal.summary import collect, grid_table

    # The method has no recipe, so it trains as VAT's does: same optimiser, network, batches and steps.
    mine = {"label": "mine", "recipe": "digits/vat", "method": "new_method:NoiseConsistency"}
    grid = Grid.of(
        "new_method",
        {
            "title": "Consistency under noise, 50 labels",
            "base": {"data": "digits", "labels": 50, "training": {"steps": given.steps}},
            "rows": ["supervised", "vat", mine],
            "seeds": list(range(given.seeds)),
            "measure": {"pgd": {"norm": "linf", "epsilon": 0.05, "steps": 20}},
        },
    )
    failed = run_grid(grid, given.store, jobs=1)
    for path, message in failed.items():
        print(f"failed: {path}: {message}")
    if not failed:
        show(grid_table(collect(grid, given.store)))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
