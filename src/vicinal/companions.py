"""Runs that another run needs: the autoencoder whose codes are mixed, and the classifier that judges what it rebuilds.

They are experiments of their own, on the same data, split and seed. A run that was told none brings them to their end
before its own training: inside its directory, or in the store of a grid, where several runs share them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

from vicinal.errors import InputError
from vicinal.experiment import Experiment, method_class
from vicinal.networks import Autoencoder
from vicinal.runs import Run, write_atomic

AUTO = "auto"
KINDS = {"autoencoder": "autoencoder", "judge": "classifier"}
"""Names of the companions, and what each trains."""


def companions_of(experiment: Experiment) -> dict[str, Experiment | Run]:
    """By name, the experiments to run first, or the runs that the method's settings name; empty for most methods.

    Raises:
        InputError: a run that is named does not exist, is not finished, or trained something else.
    """
    if not method_class(experiment.method.name).needs.autoencoder:
        return {}
    described = experiment.as_dict()
    shared = {key: described[key] for key in ("data", "split", "augment", "seed")}
    engine = {key: getattr(experiment.training, key) for key in ("device", "threads")}
    judge = described | {"method": "supervised", "averaging": {}, "recipe": "none"}
    made: dict[str, Experiment | Run] = {
        "autoencoder": Experiment.of(shared, method="mmd_vae", training=engine),
        "judge": Experiment.of(judge),
    }
    for name in KINDS:
        given = experiment.method.settings.get(name, AUTO)
        if given != AUTO:
            made[name] = _named(name, given)
    return made


def _named(name: str, path: str) -> Run:
    """The finished run that a setting names."""
    try:
        run = Run.open(path)
    except InputError as error:
        raise InputError(f"method.{name}: {error}; give the directory of a finished run, or auto") from error
    if not run.is_finished:
        raise InputError(f"method.{name}: {path} is not finished; go on with: vicinal fit --resume {path}")
    if method_class(run.experiment.method.name).trains != KINDS[name]:
        example = "mmd_vae" if name == "autoencoder" else "supervised"
        raise InputError(f"method.{name}: {path} trained no {KINDS[name]}; name a run of a method such as {example}")
    return run


def full_key(experiment: Experiment) -> str:
    """Twelve hexadecimal digits that name an experiment together with the companions that it would bring.

    Equal to the experiment's own key where there are none: another recipe of the autoencoder makes another run.
    """
    found = companions_of(experiment)
    if not found:
        return experiment.key
    parts = [item.key if isinstance(item, Experiment) else str(item.path) for item in found.values()]
    return hashlib.blake2b(":".join([experiment.key, *parts]).encode(), digest_size=6).hexdigest()


def bring(
    experiment: Experiment, run: Run, finish: Callable[[Experiment, Path], Run], store: str | os.PathLike[str] | None
) -> None:
    """Bring the companions of a run to their end and note in its directory where they are.

    Args:
        experiment: the run's.
        run: the run.
        finish: brings an experiment to its end in a directory.
        store: the folder of a grid's runs, or None to keep them inside the run's directory.
    """
    found = {}
    for name, companion in companions_of(experiment).items():
        if isinstance(companion, Experiment):
            path = run.path / name if store is None else Path(store) / companion.key
            companion = finish(companion, path)
        found[name] = os.path.relpath(companion.path, run.path)
    if found:
        write_atomic(run.companions_file, json.dumps(found, indent=1) + "\n")


def companion(run: Run, name: str) -> Run | None:
    """A run's companion, or None if it has none of that name.

    Raises:
        InputError: it is not where it was.
    """
    if not run.companions_file.is_file():
        return None
    return Run.open(run.path / json.loads(run.companions_file.read_text(encoding="utf-8"))[name])


def autoencoder_of(run: Run) -> Autoencoder | None:
    """The trained autoencoder of a run's companion, frozen and in eval mode, or None.

    Raises:
        InputError: it is not where it was.
    """
    found = companion(run, "autoencoder")
    return None if found is None else cast(Autoencoder, found.network("last").network.requires_grad_(False).eval())
