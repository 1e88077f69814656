"""The LightningModule: it turns raw batches into views, asks the method for its loss, and lets the teacher follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from vicinal.data import Augment, Batch, as_float, views
from vicinal.errors import InputError
from vicinal.methods import Method, Step, Term
from vicinal.networks import Classifier
from vicinal.randomness import generator, seed_global, seed_of
from vicinal.schedules import Progress, decay
from vicinal.training.config import Training
from vicinal.training.teacher import Teacher, TeacherSettings


class VicinalModule(LightningModule):
    """Trains a network by a method, under any Lightning Trainer that feeds it `vicinal.data.Batch`es.

    Args:
        network: the student.
        method: the loss.
        training: optimiser, schedule and number of steps.
        augment: augmentation of every view.
        teacher: how the teacher follows, if the method needs one.
        seed: names every draw: views, mixing, adversaries, dropout.
        about: plain values that every checkpoint carries (shape, classes).
        independent: builds a network of the same structure from another initialisation, for
            ``teacher.init="independent"``.

    Attributes:
        logged: loss, terms, weights and learning rate of the step that was just done, as floats; empty at the steps
            that are not logged. The trainer's loggers get them too.

    Raises:
        InputError: the network lacks what the method needs, or nothing builds an independent teacher.
    """

    def __init__(
        self,
        network: Classifier,
        method: Method,
        training: Training,
        *,
        augment: Augment | None = None,
        teacher: TeacherSettings | None = None,
        seed: int = 0,
        independent: Callable[[], nn.Module] | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if method.needs.features and network.feature_dim is None:
            raise InputError("network: the method needs pooled features, which this network does not offer")
        self.student = _laid_out(network, training)
        self.method = method
        self.training_settings = training
        self.augment = augment or Augment()
        self.seed = seed
        settings = teacher or TeacherSettings()
        self.teacher: Teacher | None = None
        if method.needs.teacher:
            initial = None
            if settings.init == "independent":
                if independent is None:
                    raise InputError("teacher.init: 'independent' needs a way to build another network")
                initial = _laid_out(independent(), training)
            self.teacher = Teacher(network, settings, initial)
        self.about = about or {}
        self.logged: dict[str, float] = {}
        self._wrong: dict[str, Tensor] = {}

    def setup(self, stage: str) -> None:
        """Compile the networks, in the process that trains them."""
        if self.training_settings.compile:
            self.student.compile()
            if self.teacher is not None:
                self.teacher.network.compile()

    @property
    def evaluated(self) -> nn.Module:
        """The network whose figures count: the teacher's where there is one, as published, else the student."""
        return self.student if self.teacher is None else self.teacher.network

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C) of the evaluated network for inputs in data space."""
        return cast(Tensor, self.evaluated(x))

    def step_of(self, batch: Batch) -> Step:
        """What the method gets to see of a raw batch: float views in data space, drawn by the step's generators."""
        # Each process of a distributed training draws its own; the seed of rank 0 is the experiment's.
        seed = self.seed if self.global_rank == 0 else seed_of(self.seed, "rank", self.global_rank)

        def augmented(x: Tensor, purpose: str, count: int) -> tuple[Tensor, ...]:
            draws = [generator(seed, purpose, batch.step, view) for view in range(count)]
            return tuple(self._layout(as_float(view)) for view in views(x, self.augment, count, draws))

        wanted = self.method.needs.views
        if wanted and batch.u is None:
            raise InputError("data: the method needs unlabelled examples and the batch has none")
        return Step.of(
            progress=Progress(batch.step, self.training_settings.steps),
            seed=seed,
            x=augmented(batch.x, "labelled views", 1)[0],
            y=batch.y,
            u=augmented(batch.u, "unlabelled views", wanted) if wanted and batch.u is not None else (),
            u_index=batch.u_index,
            student=self.student,
            teacher=None if self.teacher is None else self.teacher.network,
            teacher_policy=TeacherSettings().policy if self.teacher is None else self.teacher.settings.policy,
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted sum of the method's terms; every ``log_every`` steps they are kept in ``logged``."""
        step = self.step_of(batch)
        # Dropout and input noise know no generators: the global one is set from the step, so that resuming repeats it.
        seed_global(seed_of(step.seed, "network", batch.step), step.x.device)
        terms = self.method.loss(step)
        loss = torch.stack([term.weight * term.value for term in terms.values()]).sum()
        self.logged = {}
        if batch.step % self.training_settings.log_every == 0 or batch.step == self.training_settings.steps - 1:
            self._log_terms(batch.step, loss, terms)
        return loss

    def _log_terms(self, step: int, loss: Tensor, terms: dict[str, Term]) -> None:
        self.logged = {"loss": loss.item()}
        for name, term in terms.items():
            self.logged |= {name: term.value.item(), f"{name}_weight": float(term.weight)}
        if not all(map(math.isfinite, self.logged.values())):
            shown = ", ".join(f"{name} {value:.3g}" for name, value in self.logged.items())
            raise InputError(
                f"training: the loss is not finite at step {step} ({shown}); lower the learning rate or the weights"
            )
        if self._trainer is not None:
            self.logged["learning_rate"] = float(self._trainer.optimizers[0].param_groups[0]["lr"])
            for logger in self._trainer.loggers:
                logger.log_metrics(self.logged, step=step + 1)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimiser's step, then the teacher's: before any callback can save one without the other."""
        super().optimizer_step(*args, **kwargs)
        if self.teacher is not None:
            self.teacher.update(self.student)

    def on_validation_epoch_start(self) -> None:
        """Count anew; the processes of a distributed training measure the same running statistics."""
        self._wrong = {}
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count the errors of the student and, where there is one, of the teacher."""
        x, y = batch
        x = self._layout(as_float(x))
        networks: dict[str, nn.Module] = {"student": self.student}
        if self.teacher is not None:
            networks["teacher"] = self.teacher.network
        for name, network in networks.items():
            wrong = (network(x).argmax(dim=1) != y).sum()
            counts = torch.stack([wrong, torch.full_like(wrong, len(y))])
            self._wrong[name] = self._wrong[name] + counts if name in self._wrong else counts

    def on_validation_epoch_end(self) -> None:
        """Log the shares of errors; ``validation_error`` is that of `evaluated`.

        From whole counts: a mean of batch means is rounded, and its rounding would decide between equal errors.
        """
        errors = {}
        for name, counts in self._wrong.items():
            wrong, n = cast(Tensor, self.trainer.strategy.reduce(counts, reduce_op="sum")).tolist()
            errors[f"validation_error_{name}"] = errors["validation_error"] = wrong / n
        self.log_dict(errors, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put ``about`` beside the weights."""
        checkpoint["vicinal"] = self.about

    def configure_optimizers(self) -> Any:
        """The optimiser over the student's and the method's parameters, and its schedule by steps."""
        settings = self.training_settings
        parameters = [p for p in (*self.student.parameters(), *self.method.parameters()) if p.requires_grad]
        optimizer = settings.optimizer_for(parameters)
        factor = decay(settings.schedule, steps=settings.steps, full=settings.schedule_full, warmup=settings.warmup)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move what is not there yet; resident batches already lie on the device."""
        moved = [part.to(device, non_blocking=True) if isinstance(part, Tensor) else part for part in batch]
        return Batch._make(moved) if isinstance(batch, Batch) else tuple(moved)

    def _layout(self, x: Tensor) -> Tensor:
        if self.training_settings.channels_last and x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x


def _laid_out(network: Any, training: Training) -> Any:
    return network.to(memory_format=torch.channels_last) if training.channels_last else network
