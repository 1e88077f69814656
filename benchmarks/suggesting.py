"""What `vicinal suggest` buys: fifty more labels on the digits, chosen by it, by uncertainty alone, or by chance.

    python benchmarks/suggesting.py --output results/suggesting

Each seed trains the digits' recipe with 50 labels, asks for 50 more from the other training images, and trains from
scratch with the 100. The test part chooses nothing, and nothing was searched. Seeds that the output folder holds
already are kept.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from vicinal import __version__, machine, suggesting
from vicinal.data import Dataset, Split, SplitIndices, load, make_split
from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.reporting import Table, percent
from vicinal.runs import Run
from vicinal.settings import Choice
from vicinal.suggesting import suggest

LABELS = MORE = 50
WAYS = {
    "no more labels": "the run that is asked",
    "by chance": "50 others, drawn uniformly",
    "least margin alone": "the 50 of smallest margin",
    "suggest": "vicinal suggest -n 50",
    "suggest --by entropy": "vicinal suggest -n 50 --by entropy",
}
Rows = NDArray[np.int64]


def trained(dataset: Dataset, kept: Rows, labelled: Rows, method: str, seed: int, path: Path) -> Run:
    """A run on the digits' training images ``kept``, with the labels of ``labelled`` alone."""
    assert dataset.test is not None
    y = np.where(np.isin(kept, labelled), dataset.train.y.numpy()[kept], -1)
    x, test = dataset.train.x[torch.from_numpy(kept)].numpy(), dataset.test
    every = torch.arange(len(test))
    file = path.with_suffix(".npz")
    np.savez(file, x_train=x, y_train=y, x_test=test.x[every].numpy(), y_test=test.y.numpy())
    experiment = Experiment.of(
        data=str(file), recipe=f"digits/{method}", split={"validation": 0, "labels": None}, seed=seed
    )
    return fit(experiment, path, progress=False)


def errors(method: str, seed: int) -> dict[str, float]:
    """Test error by way of choosing, in [0,1]."""
    dataset = load(Choice("digits"))
    split: SplitIndices = make_split(dataset, Split(labels=LABELS), seed)
    kept, first = split.unlabelled.numpy(), split.labelled.numpy()
    with tempfile.TemporaryDirectory() as folder:
        run = trained(dataset, kept, first, method, seed, Path(folder, "first"))
        found = {"no more labels": run}
        with mock.patch.object(suggesting, "CANDIDATES", 1):
            alone = suggest(run, MORE)
        chance = np.random.default_rng(seed).choice(np.setdiff1d(kept, first), MORE, replace=False)
        more = {"least margin alone": alone, "suggest": suggest(run, MORE)}
        more["suggest --by entropy"] = suggest(run, MORE, score="entropy")
        chosen = {"by chance": chance}
        chosen |= {name: kept[[int(each.name) for each in items.items]] for name, items in more.items()}
        for name, rows in chosen.items():
            labelled = np.concatenate([first, rows])
            found[name] = trained(dataset, kept, labelled, method, seed, Path(folder, name.replace(" ", "-")))
        return {name: run.evaluation()["test"]["error"]["last"] for name, run in found.items()}


def main() -> None:
    """Measure what is not measured yet, and write ``results.json`` and ``table.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["supervised", "vat"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[200, 201, 202, 203, 204])
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    file = given.output / "results.json"
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"errors": {}}
    for method in given.methods:
        for seed in given.seeds:
            if str(seed) not in kept["errors"].setdefault(method, {}):
                kept["errors"][method][str(seed)] = errors(method, seed)
                command = shlex.join(["python", "benchmarks/suggesting.py", *sys.argv[1:]])
                kept |= {"command": command, "commit": machine.commit(), "machine": machine.describe()}
                file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    (given.output / "table.md").write_text(table(kept).markdown(), encoding="utf-8")


def table(kept: dict[str, Any]) -> Table:
    """Mean ± std over seeds."""
    methods = list(kept["errors"])
    rows = tuple(
        (name, *(percent([found[name] for found in kept["errors"][method].values()]) for method in methods))
        for name in WAYS
    )
    seeds = ", ".join(next(iter(kept["errors"].values())))
    notes = (
        f"scikit-learn's digits, {LABELS} labels and {MORE} more, the digits' recipes; mean ± std over seeds {seeds}; "
        "597 test images; test error at the end of training",
        *(f"{name}: {what}" for name, what in WAYS.items()),
        f"commit {kept['commit']}, vicinal {__version__}, torch {kept['machine']['torch']}, "
        f"{kept['machine']['processor']}",
        f"command: {kept['command']}",
    )
    columns = ("labels chosen", *(f"{method}, test error %" for method in methods))
    return Table("Which labels next", columns, rows, notes)


if __name__ == "__main__":
    main()
