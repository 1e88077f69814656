"""The batches of a training as a LightningDataModule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from vicinal import machine
from vicinal.data import Batches, Dataset, SplitIndices, eval_batches
from vicinal.training.config import Training

EVALUATION_BATCH = 500


class _Train(Batches):
    """Batches that Lightning may resume: they start at the trainer's step, so there is nothing to save."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class _Evaluation:
    def __init__(self, data: TrainingData) -> None:
        self._data = data

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        examples = self._data.validation
        return iter(()) if examples is None else eval_batches(examples, EVALUATION_BATCH, self._data.device)

    def __len__(self) -> int:
        return 0 if self._data.validation is None else -(-len(self._data.validation) // EVALUATION_BATCH)


class TrainingData(LightningDataModule):
    """Feeds `VicinalModule`: batches that start where the trainer stands, and the validation examples.

    Args:
        dataset: the loaded data.
        split: its rows.
        training: batch sizes and steps.
        seed: the experiment's seed.
        unlabelled: whether the method uses unlabelled examples.
    """

    def __init__(
        self, dataset: Dataset, split: SplitIndices, training: Training, *, seed: int, unlabelled: bool
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.split = split
        self.settings = training
        self.seed = seed
        self.unlabelled = unlabelled
        self.validation = split.validation_examples(dataset)

    def setup(self, stage: str) -> None:
        """Settings of the process: a spawned one does not inherit them."""
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        if self.settings.tune_allocator:
            machine.tune_allocator()

    @property
    def device(self) -> torch.device:
        """Where this process trains."""
        assert self.trainer is not None
        return self.trainer.strategy.root_device

    def train_dataloader(self) -> Batches:
        """Batches from the trainer's step on."""
        assert self.trainer is not None
        return _Train(
            self.dataset.train,
            self.split,
            labelled_batch=self.settings.batch_labelled,
            unlabelled_batch=self.settings.batch_unlabelled,
            seed=self.seed,
            steps=self.settings.steps,
            start=self.trainer.global_step,
            unlabelled=self.unlabelled,
            device=self.device,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            workers=self.settings.workers,
        )

    def val_dataloader(self) -> Any:
        """The validation examples in order; each process of a distributed training sees all of them."""
        return _Evaluation(self) if self.validation is not None else []
