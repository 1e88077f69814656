"""What Lightning's Trainer adds to each step of the library's own loop."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from vicinal.data import Batches, Dataset, Examples, SplitIndices
from vicinal.methods import Supervised
from vicinal.networks import Classifier
from vicinal.training.callbacks import Checkpoints, MetricsFile, ProgressBar
from vicinal.training.config import Training
from vicinal.training.loading import TrainingData
from vicinal.training.module import VicinalModule

ENGINES = ("Trainer", "Trainer with the library's callbacks")


class _Clock(Callback):
    """Processor seconds from the start of training to its end, set-up and tear-down excluded."""

    seconds = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.seconds = -time.process_time()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.seconds += time.process_time()


def lightning_overhead(
    network: Classifier, shape: tuple[int, int, int], *, steps: int, batch: int = 1, rounds: int = 7
) -> dict[str, Any]:
    """Milliseconds of processor time per supervised step of the bare loop and under each of `ENGINES`.

    Args:
        network: what is trained.
        shape: shape of one image.
        steps: steps of one training.
        batch: images per step.
        rounds: trainings of each kind; the first round is warm-up and not counted.
    """
    draws = torch.Generator().manual_seed(0)
    rows = torch.arange(1000)
    train = Examples(
        torch.randint(256, (1000, *shape), generator=draws, dtype=torch.uint8),
        torch.randint(network.classes, (1000,), generator=draws),
    )
    classes = tuple(str(label) for label in range(network.classes))
    dataset = Dataset("synthetic", train, None, None, classes, shape)
    split = SplitIndices(labelled=rows, unlabelled=rows, validation=rows[:0])
    training = Training(steps=steps, batch_labelled=batch, learning_rate=1e-6, log_every=50, checkpoint_every=10**9)
    times: dict[str, list[float]] = {name: [] for name in ("bare", *ENGINES)}
    for turn in range(rounds + 1):
        for name, column in times.items():
            module = VicinalModule(network, Supervised(), training)
            data = TrainingData(dataset, split, training, seed=0, unlabelled=False)
            seconds = _bare(module, data) if name == "bare" else _trainer(module, data, callbacks=name == ENGINES[1])
            if turn:
                column.append(1e3 * seconds / steps)
    return {
        "steps": steps,
        "batch": batch,
        "rounds": rounds,
        **{name: statistics.median(column) for name, column in times.items()},
    }


def _bare(module: VicinalModule, data: TrainingData) -> float:
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    settings = data.settings
    batches = Batches(
        data.dataset.train,
        data.split,
        labelled_batch=settings.batch_labelled,
        unlabelled_batch=settings.batch_unlabelled,
        seed=data.seed,
        steps=settings.steps,
        unlabelled=data.unlabelled,
    )
    module.train()
    start = time.process_time()
    for batch in batches:
        loss = module.training_step(batch, batch.step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return time.process_time() - start


def _trainer(module: VicinalModule, data: TrainingData, *, callbacks: bool) -> float:
    clock = _Clock()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own: list[Callback] = []
        if callbacks:
            own = [
                MetricsFile(Path(folder) / "metrics.csv"),
                ProgressBar("synthetic", data.settings.steps),
                Checkpoints(Path(folder), every=10**9, validate_every=None),
            ]
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=data.settings.steps,
            max_epochs=1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            callbacks=[clock, *own],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(module, datamodule=data)
    return clock.seconds
