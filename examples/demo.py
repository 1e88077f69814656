"""The main job in one go: few labels in; a table of errors and a picture of what was learnt out.

Runs two small grids (real handwritten digits with 50 labels, two circles with 20), several runs at a time, and goes on
where it stopped if it is interrupted. `make demo` calls it; the runs lie under ``runs/``, tables and picture under
``runs/demo/``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from vicinal.cli.output import show
from vicinal.data import SplitIndices, load
from vicinal.grid import Grid, run_grid, run_path
from vicinal.reporting.regions import Panel, regions_figure
from vicinal.runs import Run
from vicinal.summary import collect, grid_table

HERE = Path(__file__).parent
STORE = Path("runs")
OUTPUT = STORE / "demo"


def main() -> int:
    """Run both grids, print their tables, draw the picture."""
    console = Console()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    grids = [Grid.read(HERE / "demo" / name) for name in ("digits.yaml", "circles.yaml")]
    tables = []
    for grid in grids:
        console.print(f"[bold]{grid.title}[/bold]: {len(grid.cells)} runs")
        failed = run_grid(grid, STORE, command="make demo")
        for path, message in failed.items():
            print(f"failed: {path}: {message}", file=sys.stderr)
        if failed:
            return 1
        table = grid_table(collect(grid, STORE, command="make demo"))
        (OUTPUT / f"{grid.name}.md").write_text(table.markdown(), encoding="utf-8")
        tables.append(table)
    for table in tables:
        print()
        show(table)
    picture = OUTPUT / "two-circles.png"
    draw(grids[1], picture)
    console.print(f"\nDecision regions on the two circles: {picture}")
    files = " ".join(f"examples/demo/{grid.name}.yaml" for grid in grids)
    console.print(f"What the mixing bought, as a report: vicinal evaluate {files} --output {OUTPUT}")
    return 0


def draw(grid: Grid, path: Path) -> None:
    """One panel for each method, at the first seed."""
    panels = []
    for (_, _, label), cells in grid.groups():
        run = Run(run_path(STORE, cells[0].experiment))
        error = run.evaluation()["test"]["error"]["last"]
        title = f"{label}\nseed {cells[0].experiment.seed}, {error:.1%} of the rings wrong"
        split = SplitIndices.load(run.split_file)
        panels.append(Panel.of(title, run.network().network, load(cells[0].experiment.data), split))
    regions_figure(panels, path, columns=len(panels))


if __name__ == "__main__":
    sys.exit(main())
