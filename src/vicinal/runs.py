"""A run directory: where one experiment's results lie, who may write there, and what can be read back.

experiment.yaml     the whole description
split.json          training rows: labelled, unlabelled, validation
metrics.csv         loss terms and validation errors along training
checkpoints/        last.ckpt (to resume from) and best.ckpt (lowest validation error)
model.safetensors   the evaluated network's weights at the end of training
companions.json     where the runs are that this one needed: its autoencoder, and the judge of reconstructions
evaluation.json     figures and their provenance; its presence means that the run is finished
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from vicinal.errors import InputError
from vicinal.experiment import Experiment
from vicinal.networks import Network, build_network, unfitted_preprocess

WhichName = Literal["last", "best_validation"]
_LOCK = ".lock"


class Run:
    """One run directory.

    Args:
        path: the directory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.experiment_file = self.path / "experiment.yaml"
        self.split_file = self.path / "split.json"
        self.metrics_file = self.path / "metrics.csv"
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last.ckpt"
        self.best = self.checkpoints / "best.ckpt"
        self.model_file = self.path / "model.safetensors"
        self.companions_file = self.path / "companions.json"
        self.evaluation_file = self.path / "evaluation.json"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """An existing run directory.

        Raises:
            InputError: there is none at ``path``.
        """
        run = cls(path)
        if not run.experiment_file.is_file():
            reason = "no such directory" if not run.path.exists() else "not a run directory (it has no experiment.yaml)"
            raise InputError(f"{run.path}: {reason}")
        return run

    @property
    def is_finished(self) -> bool:
        """Whether the run was trained to its end and evaluated."""
        return self.evaluation_file.is_file()

    @property
    def experiment(self) -> Experiment:
        """The experiment that the directory belongs to."""
        return Experiment.from_yaml(self.experiment_file)

    def evaluation(self) -> dict[str, Any]:
        """What ``evaluation.json`` says.

        Raises:
            InputError: the run is not finished, or the file is damaged.
        """
        if not self.is_finished:
            raise InputError(f"{self.path}: the run is not finished; go on with: vicinal fit --resume {self.path}")
        try:
            values = json.loads(self.evaluation_file.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError("not a mapping")
        except ValueError as error:
            raise InputError(
                f"{self.evaluation_file}: damaged ({error}); write it anew with: vicinal evaluate {self.path}"
            ) from error
        return values

    def claim(self, experiment: Experiment, *, resume: bool) -> None:
        """Take the directory for an experiment, while it is `locked`; nothing in it is overwritten by another one.

        Raises:
            InputError: it holds a finished run, an unfinished one that was not asked to resume, or, to be resumed,
                another experiment's run or none.
        """
        claimed = self.experiment_file.is_file()
        if resume:
            if not claimed:
                raise InputError(f"{self.path}: holds no run; there is nothing to resume")
            if self.is_finished:
                raise InputError(f"{self.path}: the run is finished; there is nothing to resume")
            if self.experiment.key != experiment.key:
                raise InputError(f"{self.path}: holds the run of another experiment; choose another output directory")
            return
        if self.is_finished:
            raise InputError(f"{self.path}: holds a finished run; choose another output directory")
        if claimed:
            raise InputError(
                f"{self.path}: holds an unfinished run; go on with: vicinal fit --resume {self.path}, "
                "or choose another output directory"
            )
        with _writing(self.path):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            write_atomic(self.experiment_file, experiment.to_yaml())

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the directory against other processes; the system lets go of it when the process ends, however it ends.

        Args:
            wait: wait until it is free, instead of refusing.

        Raises:
            InputError: another process holds it, it holds something else than a run, or it cannot be written.
        """
        from filelock import FileLock, Timeout

        # Looked at first: not even a lock file goes into somebody else's directory.
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: is a file; choose another output directory")
        with _writing(self.path):
            if not self.experiment_file.is_file() and self.path.is_dir() and self._contents():
                raise InputError(f"{self.path}: is not empty and not a run directory; choose another output directory")
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / _LOCK)
            try:
                lock.acquire(timeout=-1 if wait else 0)
            except Timeout as error:
                raise InputError(
                    f"{self.path}: in use by another process; wait for it, or choose another output directory"
                ) from error
        try:
            yield
        finally:
            lock.release()

    def clear(self) -> None:
        """Remove what a run that failed before its first checkpoint wrote; it was an empty directory before."""
        for item in self.path.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()

    def _contents(self) -> list[Path]:
        return [item for item in self.path.iterdir() if item.name != _LOCK]

    def checkpoint(self, which: WhichName) -> dict[str, Any]:
        """A checkpoint's content; no code runs on loading.

        Raises:
            InputError: it is missing or damaged.
        """
        path = self.last if which == "last" else self.best
        if not path.is_file():
            raise InputError(
                f"{path}: no such checkpoint; the run was stopped before it was saved, go on with: "
                f"vicinal fit --resume {self.path}"
            )
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            missing = {"state_dict", "global_step", "vicinal"} - content.keys()
        except Exception as error:
            raise InputError(
                f"{path}: damaged checkpoint; restore it from a copy, or train anew in another directory"
            ) from error
        if missing:
            raise InputError(f"{path}: not a checkpoint of this library; it has no {', '.join(sorted(missing))}")
        return content

    def network(self, which: WhichName = "last") -> TrainedNetwork:
        """The evaluated network from a checkpoint, with what is needed to use it.

        Args:
            which: the end of training, or the lowest validation error.
        """
        content = self.checkpoint(which)
        state = content["state_dict"]
        prefix = f"{evaluated_weights(state)[1]}."
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        shape, classes = tuple(content["vicinal"]["shape"]), tuple(content["vicinal"]["classes"])
        experiment = self.experiment
        preprocess = unfitted_preprocess(experiment.preprocess, shape)
        with torch.random.fork_rng(devices=[]):  # for the first weights, which are replaced
            config = content["vicinal"].get("config")
            network = build_network(experiment.network, shape, len(classes), preprocess, config=config)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(
                f"{self.path}: the {which} checkpoint does not fit the network of its experiment"
            ) from error
        return TrainedNetwork(network.eval(), shape, classes, int(content["global_step"]))


def evaluated_weights(state: Mapping[str, Any]) -> tuple[str, str]:
    """Whose weights count in a checkpoint's state: "average", "teacher" or "student", and where they stand."""
    if state.get("average._extra_state", {}).get("updates"):
        return "average", "average.network"
    taught = any(name.startswith("teacher.network.") for name in state)
    return ("teacher", "teacher.network") if taught else ("student", "student")


class TrainedNetwork(NamedTuple):
    """A trained network and what is needed to use it.

    Attributes:
        network: in eval mode, from data space to logits, or an autoencoder.
        shape: shape of one example.
        classes: class names in the order of the logits.
        step: after how many training steps.
    """

    network: Network
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    step: int


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot write: {error.strerror}") from error
