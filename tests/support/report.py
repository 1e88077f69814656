"""Runs as a report gets them, with figures that are made up: no network, no data, no chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from support.report_studies import (
    calibration,
    corruptions,
    fgm,
    mistakes,
    paths,
    robustness,
    smoothness,
    study,
)
from vicinal.reporting.report import Entry

CLASSES = tuple(map(str, range(10)))


def entry(
    method: str = "supervised",
    seed: int = 0,
    error: float | None = 0.1,
    *,
    name: str | None = None,
    data: str = "digits",
    labels: int = 50,
    split: str | None = None,
    part: str = "test",
    n: int = 1000,
    selected: float | None = None,
    settings: Mapping[str, Any] | None = None,
    studies: Mapping[str, Mapping[str, Any]] | None = None,
    classes: Sequence[str] = CLASSES,
    metrics: Mapping[str, list[tuple[int, float]]] | None = None,
    **provenance: Any,
) -> Entry:
    """A run. ``error`` None makes it an autoencoder's; ``settings`` are further lines of its experiment."""
    figures: dict[str, Any] = {"n": n}
    if error is None:
        values = {"squared_error": 0.0147, "psnr": 18.8}
    else:
        values = {"error": error, "nll": 3 * error, "ece": error / 2, "brier": 1.5 * error, "confidence_gap": error / 4}
    for key, value in values.items():
        best = selected if key == "error" and selected is not None else value
        figures[key] = {"last": value, "best_validation": best}
    about = {
        "experiment": f"{method}{seed}",
        "seed": seed,
        "labels": labels,
        "unlabelled": 0 if method == "supervised" else 1080,
        "split": split or f"split{seed}",
        "data": {"name": data, "content": "ad38ebc02ca2"},
        "backbone": "small_cnn",
        "parameters": 24_000,
        "preprocess": "normalise",
        "method": method,
        "recipe": f"digits/{method}",
        "space": None,
        "regime": None,
        "steps": 1000,
        "version": "0.1.0",
        "commit": "2cd34a56d2ba",
        "machine": {"system": "Linux", "processor": "AMD EPYC", "torch": "2.13.0+cpu"},
        "training_seconds": 12.5,
        "command": f"vicinal fit {data} --method {method} --seed {seed}",
    }
    lines = {"data.name": data, "method.name": method, "training.steps": 1000, **(settings or {})}
    return Entry(
        name=name or f"runs/{method}-{seed}",
        evaluation={
            "test": figures if part == "test" else None,
            "validation": figures if part == "validation" else {**figures, "n": 120},
            "weights": "student",
            "steps": {"last": 1000, "best_validation": 800},
            "provenance": {**about, **provenance},
        },
        experiment="".join(f"{key}: {value}\n" for key, value in lines.items()) + f"seed: {seed}\n",
        metrics=curves(error or 0.0, seed) if metrics is None else metrics,
        studies=studies or {},
        classes=tuple(classes),
    )


def curves(error: float, seed: int) -> dict[str, list[tuple[int, float]]]:
    """Curves of a training of 1000 steps."""
    steps = range(1, 1001, 20)
    loss = [(step, 2.3 * math.exp(-step / 200) + error + 0.05 * math.sin(step + seed)) for step in steps]
    validation = [
        (step, error + (0.9 - error) * math.exp(-step / 150) + 0.002 * seed) for step in range(100, 1001, 100)
    ]
    rate = [(step, 0.3 * (1 + math.cos(math.pi * step / 1000)) / 2) for step in steps]
    return {"loss": loss, "supervised": loss, "learning_rate": rate, "validation_error": validation}


def every_study(
    error: float, slope: float, *, fails: Sequence[str] = (), ece: float = 0.05
) -> dict[str, dict[str, Any]]:
    """All studies of images; decision regions are left out."""
    return {
        "robustness": robustness(error, slope, fails=fails),
        "fgm": fgm(error, slope),
        "paths": paths(error),
        "regions": study("Decision regions", None, left_out="the inputs do not lie in the plane"),
        "corruptions": corruptions(error),
        "calibration": calibration(ece, ece / 2),
        "smoothness": smoothness(error / 10),
        "mistakes": mistakes(),
    }


def comparison(seeds: int = 3) -> list[Entry]:
    """ICT clearly better than the supervised baseline, VAT clearly worse, Mean Teacher hardly apart from it."""
    made = []
    for method, error, slope in (
        ("ict", 0.05, 4.0),
        ("supervised", 0.10, 8.0),
        ("vat", 0.15, 3.0),
        ("mean_teacher", 0.10, 8.0),
    ):
        for seed in range(seeds):
            shift = 0.002 * seed + (0.001 * (-1) ** seed if method == "mean_teacher" else 0.0)
            fails = ("many steps or one",) if method == "vat" else ()
            figures = every_study(error + shift, slope, fails=fails, ece=error / 2)
            made.append(entry(method, seed, error + shift, selected=error + 0.01, studies=figures))
    return made
