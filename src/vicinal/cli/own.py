"""Somebody's own data without a method: what is understood of them, and what is done with them if nothing is said.

Method, radii, network and schedule are those that `vicinal.VicinalClassifier` chooses from the data. What is added here
is what a folder of images needs: a size to read them in, and a validation part, as nobody gives a test part who has few
labels, and errors and confidences have to be measured on something.
"""

from __future__ import annotations

import contextlib
import os
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vicinal.data import SOURCES, Dataset, Examples, SplitIndices, load, make_split
from vicinal.data.decode import Files, headers
from vicinal.data.folders import PARTS, SUFFIXES, is_unlabelled, list_folder
from vicinal.data.images import is_image_folder
from vicinal.errors import InputError, MissingExtraError
from vicinal.experiment import Experiment
from vicinal.reporting import Table
from vicinal.reporting.contact_sheet import COLUMNS, Section, contact_sheet
from vicinal.runs import Run
from vicinal.settings import Choice, read_value

SIDE = 64
"""Images that differ in size, or are larger than `LARGEST`, are read in this size: small enough for a CPU."""
LARGEST = 96
VALIDATION = 0.2
"""Share of the labelled examples that is held out, from `ENOUGH` labels per class on."""
ENOUGH = 5
SHEET = "contact-sheet.png"
_CLASSES, _PER_CLASS, _UNLABELLED = 30, COLUMNS, 3 * COLUMNS


class Own(NamedTuple):
    """Data of one's own, and what is done with them.

    Attributes:
        experiment: the complete description.
        dataset: the data, loaded.
        chosen: what was chosen, in a few lines.
    """

    experiment: Experiment
    dataset: Dataset
    chosen: str

    def table(self) -> Table:
        """What was understood: examples of each class in each part."""
        dataset, split = self.dataset, self.split()
        held = split.validation_examples(dataset)
        parts: dict[str, Examples | None] = {"validation": held, "test": dataset.test}
        columns = {"labelled": dataset.train.y[split.labelled]}
        columns |= {name: part.y for name, part in parts.items() if part is not None}
        counts = {name: torch.bincount(y, minlength=len(dataset.classes)).tolist() for name, y in columns.items()}
        rows = [
            (name, *(str(count[c]) for count in counts.values())) for c, name in enumerate(dataset.classes[:_CLASSES])
        ]
        if len(dataset.classes) > _CLASSES:
            rows.append((f"and {len(dataset.classes) - _CLASSES} more", *("" for _ in counts)))
        rows.append(("all classes", *(str(sum(count)) for count in counts.values())))
        unlabelled = int((~torch.isin(split.unlabelled, split.labelled)).sum())
        notes = [_sizes(self), f"{unlabelled} examples without label", *_remarks(self)]
        return Table(self.experiment.data.name, ("class", *counts), tuple(rows), tuple(notes))

    def sheet(self) -> bytes | None:
        """Some examples of each class, and some without label, as a contact sheet (PNG); None if they are no pictures.

        Raises:
            MissingExtraError: Pillow is not installed.
        """
        dataset, split = self.dataset, self.split()
        if not dataset.is_images or dataset.shape[0] not in (1, 3):
            return None
        sections = []
        for c, name in enumerate(dataset.classes[:_CLASSES]):
            rows = split.labelled[dataset.train.y[split.labelled] == c]
            sections.append(self._section(f"{name}: {len(rows)} labelled", rows, _PER_CLASS))
        rows = split.unlabelled[~torch.isin(split.unlabelled, split.labelled)]
        if len(rows):
            sections.append(self._section(f"{len(rows)} without label", rows, _UNLABELLED))
        return contact_sheet(sections)

    def split(self) -> SplitIndices:
        """The rows that are labelled, unlabelled and held out."""
        return make_split(self.dataset, self.experiment.split, self.experiment.seed)

    def _section(self, title: str, rows: torch.Tensor, most: int) -> Section:
        shown = rows[torch.arange(min(most, len(rows))) * len(rows) // min(most, len(rows))]
        return Section(title, list(self.dataset.train.x[shown]))


def is_own(name: str) -> bool:
    """Whether a data set is a file or folder of somebody's own, rather than a known one."""
    return name not in SOURCES and Path(name).expanduser().exists()


def named_like(error: InputError, data: str | None) -> InputError:
    """What is told where a method is missing: with a hint, if the data were meant to be a folder or file of one's own.

    Args:
        error: what was to be told.
        data: the data that the command line names, if it does.
    """
    if data not in SOURCES or not Path(data).exists() or not str(error).startswith("method: missing"):
        return error
    return InputError(f"{error}; {data!r} is the known data set, and ./{data} the folder or file of that name")


def located(experiment: Experiment) -> Experiment:
    """The same experiment with the whole path to data of somebody's own, so that its run is read from anywhere."""
    if not is_own(experiment.data.name):
        return experiment
    path = str(Path(experiment.data.name).expanduser().resolve())
    return replace(experiment, data=Choice(path, experiment.data.settings))


def check_output(output: str | os.PathLike[str], data: str) -> None:
    """Refuse a run directory inside a folder of data, where its pictures would be read as examples next time.

    Raises:
        InputError: it lies there.
    """
    folder = Path(data).expanduser()
    if is_own(data) and folder.is_dir() and Path(output).resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"--output: {output} lies in the data folder {data}, and would be read as data next time; "
            "name a directory outside of it, such as --output ../runs/a"
        )


def choose(asked: Mapping[str, Any]) -> Own:
    """What to do with data of one's own.

    Args:
        asked: nested settings, as in an experiment's YAML, with ``data``, and without ``method``.

    Raises:
        InputError: the data cannot be read, or a setting is wrong.
    """
    from vicinal.estimator.defaults import Facts, chosen
    from vicinal.estimator.training import described

    rest = {key: value for key, value in asked.items() if key not in ("data", "recipe")}
    rest["training"] = dict(rest.get("training", {}))
    if "steps" in rest["training"]:  # others follow from it, so that it is read as a number here already
        rest["training"]["steps"] = read_value(str(rest["training"]["steps"]))
    # Reads and checks the settings of the data; the method is not used.
    data = Experiment.of({"data": asked["data"], "method": "supervised", "recipe": "none"}).data
    data = Choice(data.name, {**data.settings, **_size(data)})
    dataset = load(data)
    facts = Facts.of(dataset)
    split = dict(rest.get("split", {}))
    labels = split.get("labels")
    if labels is not None and str(labels).isdigit():
        facts = replace(facts, labelled=max(1, min(facts.labelled, int(labels))))
    selects = VALIDATION if facts.labelled >= ENOUGH * facts.classes else 0.0
    if dataset.validation is not None:
        split = {"validation": None, **split}
    elif "validation" not in split:
        held = round(selects * facts.labelled)
        facts = replace(facts, labelled=facts.labelled - held, rows=facts.rows - held)
    if split:
        rest["split"] = split
    experiment = replace(chosen(facts, rest, selects=selects), data=data)
    share = experiment.split.validation
    lines = described(replace(experiment, split=replace(experiment.split, validation=share or 0)), []).splitlines()
    # A published validation part is no share of the labelled examples.
    return Own(experiment, dataset, "\n".join(lines if share is not None else lines[:-1]))


@contextlib.contextmanager
def started(own: Own, output: str) -> Iterator[None]:
    """A run directory that is claimed and holds the contact sheet, so that it can be looked at before training ends.

    Train inside, as a run that is resumed. What fails before its first checkpoint leaves nothing, as with any run.

    Raises:
        InputError: the directory is not free, or cannot be written.
    """
    run, drawn = Run(output), None
    made = [path for path in (run.path, *run.path.parents) if not path.exists()]
    with contextlib.suppress(MissingExtraError):
        drawn = own.sheet()
    with run.locked():
        run.claim(own.experiment, resume=False)
        if drawn is not None:
            (run.path / SHEET).write_bytes(drawn)
            print(f"contact sheet: {run.path / SHEET}", flush=True)
    try:
        yield
    except Exception:
        if not run.last.exists():
            run.clear()
            for path in made:
                with contextlib.suppress(OSError):  # another run may lie beside it by now
                    path.rmdir()
        raise


def default_output(experiment: Experiment) -> str:
    """A run directory that is free: ``runs/DATA-METHOD``, with a number where that is taken."""
    path = Path(experiment.data.name).expanduser().resolve()
    method = experiment.method.name.replace(":", "-")
    name = f"{path.name if path.is_dir() else path.stem or 'data'}-{method}"
    numbers = iter(range(2, 10_000))
    found = Path("runs", name)
    while found.exists():
        found = Path("runs", f"{name}-{next(numbers)}")
    return str(found)


def _size(data: Choice) -> dict[str, int]:
    """A size for a folder of images that differ in size or are large, if none was asked for."""
    if data.settings.get("size") is not None or not is_image_folder(data.name):
        return {}
    sizes = [header.size for header in headers(_files(data.name), data.name)]
    if len(set(sizes)) == 1 and max(sizes[0]) <= LARGEST:
        return {}
    return {"size": min(SIDE, int(statistics.median(min(size) for size in sizes)))}


def _files(folder: str) -> Files:
    return Files([path for part in list_folder(Path(folder).expanduser()).values() for path in part.paths])


def _sizes(own: Own) -> str:
    shape, size = own.dataset.shape, own.experiment.data.settings.get("size")
    if not own.dataset.is_images:
        return f"vectors of {shape[0]} numbers"
    kind = {1: "grey", 3: "RGB"}.get(shape[0], f"{shape[0]} channels")
    resized = "" if size is None else ", resized and cut to a square (--data.size sets it)"
    return f"images of {shape[2]}x{shape[1]} pixels (width x height), {kind}{resized}"


def _remarks(own: Own) -> list[str]:
    """What may not be meant as it was understood."""
    remarks: list[str] = []
    if not is_image_folder(own.experiment.data.name):
        return remarks
    root = Path(own.experiment.data.name).expanduser()
    others = Counter(
        path.suffix.lower() or path.name
        for path in root.rglob("*")
        if path.is_file()
        and path.suffix.lower() not in SUFFIXES
        and path.name != "metadata.csv"
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if others:
        listed = ", ".join(f"{suffix} ({count})" for suffix, count in others.most_common(3))
        remarks.append(f"files that are no images by their names, left out: {listed}")
    tops = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    parts = [path for path in tops if path.name.casefold() in PARTS]
    for folder in [path for top in parts for path in sorted(top.iterdir()) if path.is_dir()] + tops:
        inside = sorted(path.name for path in folder.iterdir() if path.is_dir())
        loose = any(path.suffix.lower() in SUFFIXES for path in folder.iterdir()) or (root / "metadata.csv").exists()
        # Folders below those of a class may be meant; a class of nothing but folders is often one folder too many.
        if inside and folder not in parts and (not loose or is_unlabelled(folder.name)):
            what = "labels" if is_unlabelled(folder.name) else f"classes, all is {folder.name!r}"
            remarks.append(
                f"{folder.relative_to(root)}/ holds folders ({', '.join(inside[:3])}): their names are not taken for "
                f"{what}"
            )
    return remarks
