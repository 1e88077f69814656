"""The commands by which something leaves a run, one function each: words in, exit code out."""

from __future__ import annotations

import sys
from pathlib import Path

from vicinal.cli.parsing import Parser, one_of, whole
from vicinal.errors import InputError, MissingExtraError


def suggest(words: list[str]) -> int:
    """``vicinal suggest``."""
    parser = Parser(
        "suggest",
        "Find the unlabelled examples whose labels would help most: those that the\n"
        "network is unsure of, no two alike, and none like those that have a label in\n"
        "the run (if its data are there). Writes a CSV and a contact sheet of images.",
        "vicinal suggest runs/a -n 50",
        notes="The sheet lies beside the CSV, with the same name and .png. Move the files into\n"
        "the folders of their classes, and train again.",
    )
    parser.add("run", metavar="RUN", help="a run directory")
    parser.add("-n", "--count", type=whole(1), metavar="N", help="how many (default: 50)")
    parser.add(
        "--input", metavar="INPUT", help="choose from a folder of images or an .npz file (default: the run's own)"
    )
    parser.add(
        "--by", type=one_of("margin", "entropy"), metavar="SCORE", help="uncertainty: margin (default) or entropy"
    )
    parser.add("-o", "--output", metavar="FILE", help="the CSV file (default: suggestions.csv in the run)")
    parser.add_checkpoint()
    parser.add("--skip-damaged", action="store_true", help="list images that cannot be read, and go on without them")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.cli.output import check_writable, list_skipped, write
    from vicinal.cli.own import is_own
    from vicinal.runs import Run
    from vicinal.suggesting import HEADER
    from vicinal.suggesting import suggest as choose

    run, source, count = Run.open(given["run"]), given.get("input"), given.get("count", 50)
    output = Path(given.get("output", run.path / "suggestions.csv"))
    sheet = output.with_suffix(".png")
    if output == sheet:
        raise InputError(f"--output: {output} is the contact sheet's name; name the CSV file, such as suggestions.csv")
    data = run.experiment.data.name
    read = [folder for folder in (source, data) if folder is not None and (folder == source or is_own(folder))]

    def listed(path: Path) -> bool:
        with path.open("rb") as file:
            return file.readline(200).rstrip() == ",".join(HEADER).encode()

    def drawn_before(path: Path) -> bool:
        """A picture does not say whose it is: in the run it is ours, if our list is there as well or by its name."""
        ours = "output" not in given or (output.is_file() and listed(output))
        return ours and path.resolve().is_relative_to(run.path.resolve())

    check_writable(output, *read, ours=listed)
    check_writable(sheet, *read, ours=drawn_before)
    found = choose(
        run,
        count,
        source,
        score=given.get("by", "margin"),
        which=given.get("checkpoint", "last"),
        skip_damaged=given.get("skip_damaged", False),
    )
    list_skipped(found.damaged)
    write(output, found.csv())
    print(f"{len(found.items)} of {found.pool} examples without label: {output}")
    try:
        drawn = found.sheet()
    except MissingExtraError as error:
        print(f"no contact sheet: {error}", file=sys.stderr)
        return 0
    if drawn is not None:
        sheet.write_bytes(drawn)
        print(f"contact sheet: {sheet}")
    return 0


def export(words: list[str]) -> int:
    """``vicinal export``."""
    parser = Parser(
        "export",
        "Write a run's model for use elsewhere: from images in [0,1] to logits, with the\n"
        "normalisation inside. Its outputs are compared with the run's.",
        "vicinal export runs/a --format onnx --output model.onnx",
        notes="onnx          for ONNX Runtime and others (extra 'export')\n"
        "torch-export  a program for PyTorch without this library\n"
        "safetensors   weights, and what vicinal.exporting.load needs, in one file\n"
        "hub-folder    the same with a model card, as the Hugging Face hub lays it out",
    )
    forms = ("onnx", "torch-export", "safetensors", "hub-folder")
    parser.add("run", metavar="RUN", help="a run directory")
    parser.add("--format", type=one_of(*forms), metavar="FORM", help="onnx, torch-export, safetensors or hub-folder")
    parser.add("-o", "--output", metavar="PATH", help="the file; for hub-folder the folder, new or empty")
    parser.add_checkpoint()
    given = parser.parse(words)
    if given is None:
        return 0
    for flag, example in (("format", "--format onnx"), ("output", "--output model.onnx")):
        if flag not in given:
            raise InputError(f"--{flag}: missing; name one, such as {example}")
    from vicinal.cli.output import check_writable
    from vicinal.exporting import export as write
    from vicinal.runs import Run

    run = Run.open(given["run"])
    if given["format"] != "hub-folder":
        check_writable(given["output"], run.model_file, run.experiment_file, run.evaluation_file, run.last, run.best)
    written = write(run, given["format"], given["output"], which=given.get("checkpoint", "last"))
    for path in written.files:
        print(f"{path}  {_size(path.stat().st_size)}")
    print(written.check, file=sys.stderr)
    return 0


def _size(count: int) -> str:
    """Bytes, as people read them.

    >>> _size(512), _size(97_300), _size(5_600_000)
    ('512 bytes', '97.3 kB', '5.6 MB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
