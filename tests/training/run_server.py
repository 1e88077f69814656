"""A process that imports everything once and forks a fresh one for each run it is asked for, and may let it be killed.

It reads a job a line (JSON), and answers with the process of the run and, once that has ended, its exit code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from vicinal import assembling, evaluating, fitting, machine
from vicinal.experiment import Experiment
from vicinal.training import callbacks
from vicinal.training.module import VicinalModule


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, act: Callable[[], object], when: Callable[..., bool] = lambda *_, **__: True) -> None:
    """Let ``act`` happen before those calls for which ``when`` holds."""
    inner = getattr(owner, name)

    def outer(*args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs):
            act()
        return inner(*args, **kwargs)

    setattr(owner, name, outer)


def at_step(step: int) -> Callable[..., bool]:
    return lambda module, batch, index: batch.step == step


def half_a_checkpoint() -> None:
    def cut(self: Trainer, path: Path, **_: Any) -> None:
        Path(path).write_bytes(b"half")
        kill()

    Trainer.save_checkpoint = cut  # type: ignore[assignment,method-assign]


def half_a_row(at: int) -> None:
    row = callbacks.MetricsFile._append

    def torn(self: Any, trainer: Any, values: dict[str, float]) -> None:
        if trainer.global_step == at:
            with self.path.open("a") as file:
                file.write(str(at)[:1])
            kill()
        row(self, trainer, values)

    callbacks.MetricsFile._append = torn  # type: ignore[method-assign]


def prepare(job: dict[str, Any]) -> None:
    """Arrange for what shall happen to the run."""
    if "kill_at_step" in job:
        before(VicinalModule, "training_step", kill, at_step(job["kill_at_step"]))
    if "signal_at_step" in job:
        number, step, times = job["signal_at_step"]
        before(
            VicinalModule, "training_step", lambda: [os.kill(os.getpid(), number) for _ in range(times)], at_step(step)
        )
    if "kill_in_save" in job:
        file, step = job["kill_in_save"]
        when = lambda _, trainer, name, **__: (name, trainer.global_step) == (file, step)  # noqa: E731
        before(callbacks.Checkpoints, "_save", half_a_checkpoint, when)
    if "kill_in_row" in job:
        half_a_row(job["kill_in_row"])
    if "kill_in_validation" in job:
        when = lambda module, *_: module.trainer.global_step == job["kill_in_validation"]  # noqa: E731
        before(VicinalModule, "validation_step", kill, when)
    if "kill_before" in job:
        before(fitting if hasattr(fitting, job["kill_before"]) else evaluating, job["kill_before"], kill)
    if "errors" in job:
        VicinalModule.on_validation_epoch_end = lambda self: self.log_dict(  # type: ignore[method-assign]
            {"validation_error": job["errors"][str(self.trainer.global_step)]}
        )


def run(job: dict[str, Any]) -> int:
    """Exit code: 0, 130 if it was interrupted as it should be, 131 if otherwise, 1 for an error."""
    prepare(job)
    try:
        fitting.fit(Experiment.of(job["experiment"]), job["output"], resume=job["resume"], progress=False, command="c")
    except KeyboardInterrupt as error:
        return 130 if type(error) is callbacks.Interrupted else 131
    except BaseException as error:
        print(type(error).__name__, error, file=sys.stderr, flush=True)
        return 1
    return 0


def main() -> None:
    torch.set_num_threads(1)
    # What every run needs, once: the forked processes inherit it.
    assembling.Assembled(Experiment.of(data="digits", method="advmixup", labels=50, recipe="none")).module()
    machine.commit()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os._exit(run(json.loads(line)))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
