"""Times of a training step on a device, by method and mode."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from step_floor import Subject

from vicinal.experiment import Experiment
from vicinal.networks import Classifier, build_network, fit_normalise


class Mode(NamedTuple):
    """How a step runs: each mode adds one thing to the one before."""

    name: str
    channels_last: bool = False
    bf16: bool = False
    compiled: bool = False


MODES = (
    Mode("eager"),
    Mode("channels_last", channels_last=True),
    Mode("channels_last bf16", channels_last=True, bf16=True),
    Mode("channels_last bf16 compiled", channels_last=True, bf16=True, compiled=True),
)
SHAPE, CLASSES = (3, 32, 32), 10
WARM_UP = 10
"""Steps after the first that are not timed: the search for the fastest kernels, the allocator's growth."""


def time_steps(
    experiments: Mapping[str, Experiment], modes: tuple[Mode, ...], *, device: str, tiny: bool
) -> list[dict[str, Any]]:
    """One row for each experiment's method and network in each mode, on synthetic images that lie on the device.

    The time of a step is that of a run of steps between two synchronisations, over their number, so that work may
    overlap from step to step as it does in training; the figure is the median of several such runs. The first step
    (compilation, kernel selection) is reported apart, and it and `WARM_UP` more are not in the figure. The floor is
    timed in the same way. Preprocessing here is a normalisation per channel: whitening would need the real images.

    Args:
        experiments: by the name of their row.
        modes: how to run them.
        device: where.
        tiny: small batches and few steps, to see that it works.
    """
    rows = []
    for name, experiment in experiments.items():
        for mode in modes:
            rows.append({"method": name, **_time(experiment, mode, device=device, tiny=tiny)})
            row = rows[-1]
            print(
                f"{name} {mode.name}: {row['step_ms']:.2f} ms a step, first step {row['first_step_s']:.1f} s",
                flush=True,
            )
    return rows


def _time(experiment: Experiment, mode: Mode, *, device: str, tiny: bool) -> dict[str, Any]:
    training = experiment.training
    shape = (3, 8, 8) if tiny else SHAPE
    torch.manual_seed(0)
    images = torch.randint(256, (256, *shape), dtype=torch.uint8)
    network = build_network(experiment.network, shape, CLASSES, fit_normalise(images))
    assert isinstance(network, Classifier)
    subject = Subject(
        experiment.build_method(),
        network,
        shape=shape,
        labelled=training.batch_labelled,
        unlabelled=training.batch_unlabelled,
        augment=experiment.augment,
        device=device,
        channels_last=mode.channels_last,
        bf16=mode.bf16,
    )
    if mode.compiled:
        # As training does; a dry run traces without generating code, which would take the most of its minute.
        backend = "eager" if tiny else "inductor"
        subject.module.student.compile(backend=backend)
        if subject.module.teacher is not None:
            subject.module.teacher.network.compile(backend=backend)
    runs, length = (3, 2) if tiny else (7, 20)
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def one() -> None:
        subject.clear()
        subject.step()

    def floor() -> None:
        subject.clear()
        subject.floor()

    first = _seconds(one, 1, device)
    _seconds(one, WARM_UP, device)
    step = [_seconds(one, length, device) / length for _ in range(runs)]
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else None
    _seconds(floor, WARM_UP, device)
    bare = [_seconds(floor, length, device) / length for _ in range(runs)]
    images_per_step = training.batch_labelled + (
        training.batch_unlabelled if experiment.build_method().needs.views else 0
    )
    seconds = statistics.median(step)
    return {
        "mode": mode.name,
        "passes": str(subject.method.passes()),
        "batch": [training.batch_labelled, training.batch_unlabelled],
        "step_ms": 1e3 * seconds,
        "step_ms_range": [1e3 * min(step), 1e3 * max(step)],
        "floor_ms": 1e3 * statistics.median(bare),
        "images_per_second": images_per_step / seconds,
        "first_step_s": first,
        "peak_memory_bytes": memory,
        "host_syncs": _syncs(one) if device == "cuda" else None,
        "steps": [runs, length],
        "warm_up": WARM_UP,
    }


def _syncs(step: Callable[[], None]) -> int:
    """How often one step makes the host wait for the device, as far as torch's debug mode sees it."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)


def _seconds(run: Callable[[], None], times: int, device: str) -> float:
    """Seconds of so many calls, from an idle device to an idle device."""
    synchronise: Any = torch.cuda.synchronize if device == "cuda" else contextlib.nullcontext
    synchronise()
    start = time.perf_counter()
    for _ in range(times):
        run()
    synchronise()
    return time.perf_counter() - start
