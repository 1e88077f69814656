"""The two pictures of the two-circles study: what works, and what does not.

    python examples/two_circles_figures.py [STORE] [FOLDER]

Takes the runs of ``results/two-circles/grid.yaml`` from the store (``runs``), trains those that are missing, and writes
``two-circles-works.png`` and ``two-circles-fails.png`` into the folder (``docs/_static``).
"""

from __future__ import annotations

import sys
from pathlib import Path

from vicinal.data import SplitIndices, load
from vicinal.grid import Grid, run_grid, run_path
from vicinal.reporting.regions import Panel, regions_figure
from vicinal.runs import Run

ROOT = Path(__file__).resolve().parent.parent
SEED = 17  # one of those where the labels alone do not suffice
PICTURES = {
    "two-circles-works.png": ("VAT", "AdvMixup", "AdvMixup, own path"),
    "two-circles-fails.png": ("supervised", "ICT, alpha 1", "AdvMixup, alpha 1"),
}


def main(store: str = "runs", folder: str = str(ROOT / "docs" / "_static")) -> int:
    """Draw both pictures."""
    grid = Grid.read(ROOT / "results" / "two-circles" / "grid.yaml")
    failed = run_grid(grid, store, command="vicinal benchmark results/two-circles/grid.yaml")
    for path, message in failed.items():
        print(f"failed: {path}: {message}", file=sys.stderr)
    if failed:
        return 1
    for name, rows in PICTURES.items():
        regions_figure([panel(grid, store, row) for row in rows], Path(folder) / name)
        print(Path(folder) / name)
    return 0


def panel(grid: Grid, store: str, row: str) -> Panel:
    """The picture of one row's run with the seed of the pictures."""
    (cell,) = (cell for cell in grid.cells if cell.row == row and cell.experiment.seed == SEED)
    run = Run(run_path(store, cell.experiment))
    error = run.evaluation()["test"]["error"]["last"]
    title = f"{row[0].upper()}{row[1:]}\nseed {SEED}, {error:.1%} of the rings wrong"
    split = SplitIndices.load(run.split_file)
    return Panel.of(title, run.network().network, load(cell.experiment.data), split)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
