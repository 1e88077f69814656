"""The LightningModule: it turns raw batches into views, asks the method for its loss, and lets the teacher follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from vicinal.data import Augment, Batch, Rows, Strong, as_float, augment, strong_augment, views
from vicinal.errors import InputError
from vicinal.methods import Context, Method, Step, Term
from vicinal.networks import Autoencoder, Network
from vicinal.randomness import generator, seed_global, seed_of
from vicinal.schedules import Progress, decay
from vicinal.training.averaging import AveragingSettings, SnapshotAverage
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
        averaging: which average of the student's weights is evaluated.
        strong: strong augmentation, for the methods that need strong views.
        independent: builds a network of the same structure from another initialisation, for
            ``teacher.init="independent"``.
        shape: shape of one example; not needed by methods that prepare nothing.
        rows: number of rows of the training part, for methods that keep something for each.
        pool: training inputs, without those of validation, to renew running statistics.
        autoencoder: the trained autoencoder of the data, if the method needs one.

    Attributes:
        logged: loss, terms, weights and learning rate of the step that was just done, as floats; empty at the steps
            that are not logged. The trainer's loggers get them too.

    Raises:
        InputError: the network or the data lack what the method needs, or nothing builds an independent teacher.
    """

    def __init__(
        self,
        network: Network,
        method: Method,
        training: Training,
        *,
        augment: Augment | None = None,
        teacher: TeacherSettings | None = None,
        averaging: AveragingSettings | None = None,
        strong: Strong | None = None,
        seed: int = 0,
        independent: Callable[[], nn.Module] | None = None,
        shape: tuple[int, ...] = (),
        rows: int = 0,
        pool: Rows | None = None,
        autoencoder: Autoencoder | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check_network(network, method)
        self.student = _laid_out(network, training)
        self.method = method
        self.training_settings = training
        self.augment = augment or Augment()
        self.strong = strong or Strong()
        self.pool = pool
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
        self.averaging = averaging or AveragingSettings()
        self.average = self.averaging.average(network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "method"))
            method.prepare(Context(network, shape, rows, autoencoder))
        self.about = about or {}
        self.logged: dict[str, float] = {}
        self._wrong: dict[str, Tensor] = {}
        self._step: Step | None = None

    def setup(self, stage: str) -> None:
        """Compile the networks, in the process that trains them."""
        if self.training_settings.compile:
            self.student.compile()
            for follower in (self.teacher, self.average):
                if follower is not None:
                    follower.network.compile()

    @property
    def evaluated(self) -> nn.Module:
        """The network whose figures count: the average's, else the teacher's, where there is one, else the student."""
        return list(self._networks().values())[-1]

    def _networks(self) -> dict[str, nn.Module]:
        """What can be evaluated; the last is what counts."""
        found = {"student": cast(nn.Module, self.student)}
        if self.teacher is not None:
            found["teacher"] = self.teacher.network
        if self.average is not None and self.average.updates:
            found["average"] = self.average.network
        return found

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

        needs = self.method.needs
        if needs.views and batch.u is None:
            raise InputError("data: the method needs unlabelled examples and the batch has none")
        # Strong views start from weak ones of their own.
        u = augmented(batch.u, "unlabelled views", needs.views + needs.strong) if batch.u is not None else ()
        u = (*u[: needs.views], *(self._strong(x, seed, batch.step, k) for k, x in enumerate(u[needs.views :])))
        return Step.of(
            progress=Progress(batch.step, self.training_settings.steps),
            seed=seed,
            x=augmented(batch.x, "labelled views", 1)[0],
            y=batch.y,
            u=u,
            u_index=batch.u_index,
            student=self.student,
            teacher=None if self.teacher is None else self.teacher.network,
            teacher_policy=TeacherSettings().policy if self.teacher is None else self.teacher.settings.policy,
        )

    def _strong(self, x: Tensor, seed: int, step: int, view: int) -> Tensor:
        draws = generator(seed, "strong views", step, view)
        return self._layout(strong_augment(x, self.strong, draws))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted sum of the method's terms; every ``log_every`` steps they are kept in ``logged``."""
        step = self._step = self.step_of(batch)
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
        self.training_settings.decay_after_step(args[2])  # the schedule moves the learning rate later
        if self.teacher is not None:
            self.teacher.update(self.student)
        if self._step is not None:
            self.method.after_step(self._step)
            if self.average is not None:
                self._follow(self._step.progress.step + 1)
            self._step = None

    def _follow(self, done: int) -> None:
        """Let the average follow; at the end of training its running statistics must be those of its weights."""
        steps = self.training_settings.steps
        if not isinstance(self.average, SnapshotAverage):
            cast(Teacher, self.average).update(self.student)
            return
        if self.averaging.is_due(done, steps):
            self.average.update(self.student)
        if done == steps:
            self._renew_statistics()

    def _renew_statistics(self) -> None:
        if isinstance(self.average, SnapshotAverage) and self.average.stale:
            if self.pool is None:
                raise InputError("averaging: the mean of snapshots needs training inputs to renew running statistics")
            count = min(self.training_settings.batch_unlabelled, len(self.pool))
            self.average.renew_statistics(
                self.pool, self._view, count=count, passes=self.averaging.refresh, seed=self.seed, device=self.device
            )

    def _view(self, x: Tensor, draws: torch.Generator) -> Tensor:
        return self._layout(as_float(augment(x, self.augment, draws)))

    def on_validation_epoch_start(self) -> None:
        """Count anew, on running statistics that fit their weights and that all processes share."""
        self._wrong = {}
        self._renew_statistics()
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count the errors of the student and, where there is one, of the teacher."""
        x, y = batch
        x = self._layout(as_float(x))
        for name, network in self._networks().items():
            wrong = self.method.measured(network, x, y)
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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.about = {**self.about, **checkpoint.get("vicinal", {})}  # what the training began with stays on record

    def configure_optimizers(self) -> Any:
        """The optimiser over the student's and the method's parameters, and its schedule by steps."""
        settings = self.training_settings
        parameters = [p for p in (*self.student.parameters(), *self.method.trained()) if p.requires_grad]
        optimizer = settings.optimizer_for(parameters)
        factor = decay(
            settings.schedule,
            steps=settings.steps,
            full=settings.schedule_full,
            warmup=settings.warmup,
            cycle=settings.cycle,
        )
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


def _check_network(network: Network, method: Method) -> None:
    """Refuse a network that lacks what the method needs."""
    needs, kind = method.needs, "autoencoder" if isinstance(network, Autoencoder) else "classifier"
    if kind != method.trains:
        example = "mmd_vae" if method.trains == "autoencoder" else "small_cnn"
        named = {"classifier": "a classifier", "autoencoder": "an autoencoder"}
        raise InputError(
            f"network: the method trains {named[method.trains]}, and this is {named[kind]}; name one such as {example}"
        )
    if isinstance(network, Autoencoder):
        return
    if needs.features and network.feature_dim is None:
        raise InputError("network: the method needs pooled features, which this network does not offer")
    if needs.stages and not network.stages:
        raise InputError("network: the method mixes in hidden layers, and this network names no stages")
    if needs.map and not network.has_map:
        raise InputError(
            "network: the method needs a feature map that is averaged at the end, and this network has none"
        )
