"""Further measurements of finished runs, kept in their directories: what a grid's table shows beside the error."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vicinal import machine
from vicinal.data import eval_batches, load
from vicinal.errors import InputError, nearest
from vicinal.evaluation.measures import MEASURES
from vicinal.randomness import seed_of
from vicinal.runs import Run, write_atomic
from vicinal.settings import build, parse_settings, shortened

BATCH = 200


def measures_of(where: str, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Measurements as they stand in a grid file, checked and complete: settings by name.

    ``n`` limits a measurement to so many examples, spread evenly over the test part (None: all of it).

    Raises:
        InputError: an unknown measurement or setting.
    """
    made = {}
    for name, settings in given.items():
        if name not in MEASURES:
            raise InputError(f"{where}: unknown measurement {name!r}; {nearest(str(name), MEASURES)}")
        if not isinstance(settings or {}, Mapping):
            raise InputError(f"{where}.{name}: expected settings, such as {{n: 100}}, got {shortened(settings)}")
        settings = dict(settings or {})
        n = settings.pop("n", None)
        if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
            raise InputError(f"{where}.{name}.n: expected a number of examples of at least 1, got {n!r}")
        build(f"{where}.{name}", MEASURES[name].settings, settings)
        made[name] = {**parse_settings(f"{where}.{name}", MEASURES[name].settings, settings), "n": n}
    return made


def measured(run: Run, name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was measured of a run with these settings, or None."""
    found = stored(run, name, settings)
    return None if found is None else found["figures"]


def measure(run: Run, measures: Mapping[str, Mapping[str, Any]]) -> None:
    """Measure what is not measured yet, of the weights at the end of training, on the test part.

    Raises:
        InputError: the data have no test part.
    """
    missing = {name: settings for name, settings in measures.items() if measured(run, name, settings) is None}
    if not missing:
        return
    test = load(run.experiment.data).test
    if test is None:
        raise InputError(f"{run.path}: the data have no test part to measure on; leave out 'measure'")
    network = run.network("last").network
    for name, settings in missing.items():
        call = {key: value for key, value in settings.items() if key != "n"}
        # The same draws for every run, so that runs are compared on the same perturbed examples.
        batches = eval_batches(test.spread(settings["n"]), BATCH)
        found = MEASURES[name].settings(**call)(network, batches, seed_of(0, "measuring"))
        values = {"settings": settings, "figures": dataclasses.asdict(found), "commit": machine.commit()}
        store(run, name, settings, values)


def stored(run: Run, name: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `store` kept under a name and key, or None; what is damaged is measured anew."""
    try:
        values: dict[str, Any] = json.loads(_path(run, name, key).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return values if isinstance(values, dict) and "figures" in values else None


def store(run: Run, name: str, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Keep what was measured of a run in its directory.

    Args:
        run: the run.
        name: of the measurement.
        key: plain values that it depends on, beside the run.
        values: plain values; the figures stand under ``"figures"``.
    """
    path = _path(run, name, key)
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, json.dumps(values, indent=1) + "\n")


def _path(run: Run, name: str, key: Mapping[str, Any]) -> Path:
    text = json.dumps(key, sort_keys=True, default=str)
    return run.path / "measures" / f"{name}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}.json"
