"""Studies of finished runs: measured several at a time, kept in the runs' directories, and gathered for a report."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import vicinal
from vicinal import machine
from vicinal.assembling import Assembled
from vicinal.errors import InputError, nearest
from vicinal.evaluating import device_of, evaluate, trained
from vicinal.experiment import Experiment
from vicinal.measuring import store, stored
from vicinal.networks import Autoencoder
from vicinal.parallel import run_all
from vicinal.reporting.report import Entry
from vicinal.runs import Run, write_atomic
from vicinal.settings import build, parse_settings
from vicinal.studies import STUDIES, Study, Subject

FIGURES = "figures"
"""The measurement that every run gets, beside its studies."""
SEED = 0
"""Of all draws: the same for every run, so that runs are compared on the same perturbed examples."""


def assess(
    runs: Sequence[Run],
    studies: Mapping[str, Study],
    *,
    sources: Mapping[str, Run] | None = None,
    jobs: int | None = None,
    command: str | None = None,
) -> dict[str, str]:
    """Measure what is not measured yet, of the weights at the end of training, and write each ``evaluation.json``.

    Every study that is finished stays in the run's directory: the same call goes on where one was interrupted.

    Args:
        runs: runs whose training is complete.
        studies: by name, see `vicinal.studies.STUDIES`.
        sources: by the path of a run, the run whose gradients lead black-box attacks on it; see `find_sources`.
        jobs: measurements at a time, each on one thread; one per core by default.
        command: the command to record, see `evaluate`.

    Returns:
        What went wrong, by run and study; empty if all is measured.

    Raises:
        InputError: a run's training is not complete, or it cannot be evaluated.
    """
    sources = sources or {}
    kept = {}
    for run in runs:  # before any work is spent
        with run.locked():
            trained(run)
        kept[str(run.path)] = run.evaluation().get("studies", {}) if run.is_finished else {}
    if jobs is None and any(device_of(run.experiment.training) == "cuda" for run in runs):
        jobs = 1  # several would only share the one device
    figures = {f"{run.path}: {FIGURES}": (str(run.path), command) for run in runs}
    for name, message in run_all(_measure_figures, figures, noun="runs", jobs=jobs).items():
        raise InputError(message if name.partition(": ")[0] in message else f"{name}: {message}")
    tasks, done = {}, 0
    for run in runs:
        for name, study in studies.items():
            source = sources.get(str(run.path)) if study.uses_source else None
            found = stored(run, _file(name), _key(run, study, source))
            if found is None or (found["figures"] or {}).get("incomplete"):
                path = None if source is None else str(source.path)
                tasks[f"{run.path}: {name}"] = (str(run.path), name, study, path)
            else:
                done += 1
    failed = run_all(_measure, tasks, noun="studies", done=done, jobs=jobs)
    for run in runs:
        found = gathered(run, studies, sources.get(str(run.path)))
        values = run.evaluation()
        same = _state(run)
        still = {name: study for name, study in kept[str(run.path)].items() if same.items() <= study.items()}
        merged = still | {name: _without_pictures(study) for name, study in found.items()}
        values["studies"] = {name: merged[name] for name in STUDIES if name in merged}
        with run.locked(wait=True):
            write_atomic(run.evaluation_file, json.dumps(values, indent=2) + "\n")
    return failed


def gathered(run: Run, studies: Mapping[str, Study], source: Run | None = None) -> dict[str, dict[str, Any]]:
    """The studies that are measured of a run, by name, as they are kept in its directory."""
    found = {}
    for name, study in studies.items():
        values = stored(run, _file(name), _key(run, study, source if study.uses_source else None))
        if values is not None:
            found[name] = values
    return found


def entry(run: Run, studies: Mapping[str, Study], source: Run | None = None) -> Entry:
    """What a report says of a run."""
    return Entry(
        name=str(run.path),
        evaluation=run.evaluation(),
        experiment=run.experiment_file.read_text(encoding="utf-8"),
        metrics=_metrics(run),
        studies=gathered(run, studies, source),
        classes=run.network("last").classes,
    )


def made() -> str:
    """By what and when a report was made."""
    return f"vicinal {vicinal.__version__}, {date.today().isoformat()}"


def studies_of(given: Mapping[str, Mapping[str, Any]], only: Sequence[str] | None = None) -> dict[str, Study]:
    """The studies that are asked for, with their settings.

    Args:
        given: settings by study, as texts or values; studies that are not there have their defaults.
        only: names of the studies; None for all.

    Raises:
        InputError: an unknown study or setting, a value out of range, or settings of a study that is left out.
    """
    for name in (*(only or ()), *given):
        if name not in STUDIES:
            raise InputError(f"unknown study {name!r}; {nearest(name, STUDIES)}")
    chosen = [name for name in STUDIES if only is None or name in only]
    for name in given:
        if name not in chosen:
            raise InputError(f"{name}: has settings, but is not among the studies that are asked for; name it there")
    return {name: build(name, STUDIES[name], given.get(name, {})) for name in chosen}


def find_sources(runs: Sequence[Run], given: Run | None = None) -> dict[str, Run]:
    """Whose gradients lead black-box attacks on each run.

    Args:
        runs: the runs that are compared.
        given: the run to take for all others; None for a supervised one among ``runs`` on the same data: with the same
            preprocessing, with the same labels and of another seed, as far as there is one. A run is never its own
            source.

    Raises:
        InputError: the run that was given has other data, or trained no classifier.
    """
    tasks = {str(run.path): (run, run.experiment) for run in runs}
    if given is not None:
        if isinstance(given.network("last").network, Autoencoder):
            raise InputError(f"{given.path}: trained no classifier, so there are no gradients to lead an attack")
        for path, (_, experiment) in tasks.items():
            if experiment.data != given.experiment.data:
                raise InputError(f"{given.path}: was trained on other data than {path}; a source needs the same")
        return {path: given for path, (run, _) in tasks.items() if not run.path.samefile(given.path)}
    plain = [(run, experiment) for run, experiment in tasks.values() if experiment.method.name == "supervised"]
    found = {}
    for path, (run, mine) in tasks.items():
        able = [
            (_unlike(mine, theirs), other)
            for other, theirs in plain
            if theirs.data == mine.data and not other.path.samefile(run.path)
        ]
        if able:
            found[path] = min(able, key=lambda item: item[0])[1]  # the first of those that are as good
    return found


def _unlike(mine: Experiment, theirs: Experiment) -> tuple[bool, ...]:
    """How ill another run suits as a source, the weightiest reason first."""
    return theirs.preprocess != mine.preprocess, theirs.split != mine.split, theirs.seed == mine.seed


def _key(run: Run, study: Study, source: Run | None) -> dict[str, Any]:
    """What a study's figures depend on."""
    return {
        "settings": {name: getattr(study, name) for name in parse_settings("study", type(study), {})},
        "seed": SEED,
        "source": None if source is None else _weights(source),
        **_state(run),
    }


def _state(run: Run) -> dict[str, Any]:
    """What all figures of a run depend on: weights, data, and the code that measures."""
    data = run.evaluation()["provenance"]["data"].get("content")
    return {"weights": _weights(run), "data": data, "version": vicinal.__version__}


def _file(name: str) -> str:
    """Where a study is kept: apart from the measurements of grids, some of which have the same names."""
    return f"study-{name}"


def _weights(run: Run) -> str:
    """16 hexadecimal digits that name what training left, so that other weights are measured anew."""
    try:
        status = run.last.stat()
        return _digest(str(run.last.resolve()), status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{run.last}: cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=1000)
def _digest(path: str, *status: int) -> str:  # noqa: ARG001
    """Of a file, read once as long as nobody writes it: every study of a run asks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def _measure_figures(path: str, command: str | None) -> None:
    run, parts = _loaded(path)
    with run.locked(wait=True):
        evaluate(run, parts, command=command)


def _measure(path: str, name: str, study: Study, source: str | None) -> None:
    started = time.perf_counter()
    run, parts = _loaded(path)
    other = None if source is None else Run(source)
    key = _key(run, study, other)
    figures, left_out = None, None
    network = run.network("last").network
    if isinstance(network, Autoencoder):
        left_out = "an autoencoder was trained, and no classifier"
    else:
        device = device_of(parts.experiment.training)
        subject = Subject(
            network.to(device),
            parts.dataset,
            parts.split,
            device=device,
            preprocess=parts.experiment.preprocess,
            source=None if other is None else other.network("last").network.to(device),
            source_name=source,
            source_preprocess=None if other is None else other.experiment.preprocess,
        )
        left_out = study.refusal(subject)
        figures = study(subject, SEED) if left_out is None else None
    values = {
        "title": study.title,
        **key,
        "source_name": source,
        "figures": figures,
        "left_out": left_out,
        "commit": machine.commit(),
        "seconds": round(time.perf_counter() - started, 2),
    }
    store(run, _file(name), key, values)


def _loaded(path: str) -> tuple[Run, Assembled]:
    """A run and its data, loaded once for all studies that one process makes of it."""
    run = Run.open(path)
    return run, _assembled(str(run.path.resolve()), _weights(run))


@functools.lru_cache(maxsize=1)
def _assembled(path: str, weights: str) -> Assembled:  # noqa: ARG001
    """By the weights too, as another run may lie there by now."""
    return Assembled(Run(path).experiment)


def _without_pictures(values: Mapping[str, Any]) -> dict[str, Any]:
    figures = values["figures"]
    if figures is not None:
        figures = {name: value for name, value in figures.items() if name != "pictures"}
    return {**values, "figures": figures}


def _metrics(run: Run) -> dict[str, list[tuple[int, float]]]:
    """The curves of a run's training: by column, the steps and values."""
    curves: dict[str, list[tuple[int, float]]] = {}
    if not os.path.isfile(run.metrics_file):
        return curves
    with open(run.metrics_file, newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            for name, value in line.items():
                if name != "step" and value:
                    curves.setdefault(name, []).append((int(line["step"]), float(value)))
    return curves
