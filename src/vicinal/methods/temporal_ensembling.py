"""Temporal ensembling (Laine and Aila 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from torch import Tensor, distributed

from vicinal.errors import InputError
from vicinal.methods.base import Context, Cost, Method, Needs, Origin, Step, Term
from vicinal.schedules import RampName, ramp
from vicinal.settings import check
from vicinal.vicinity import cross_entropy, full_precision, squared_error


class TemporalEnsembling(Method):
    """Agree with the moving average of one's own predictions in the epochs before.

    With p_i the training-mode prediction on unlabelled row i in this epoch (the step's only pass on it), Z_i the row of
    a bank that starts at 0, and n_i how often row i has been seen::

        L = mean_i CE(y_i, f(x_i)) + w(t) mean_{i seen, c} ( softmax f(u_i)_c - Z_ic / (1 - alpha^n_i) )^2
        Z_i <- alpha Z_i + (1 - alpha) p_i

    The division takes out the bias of the start at 0, exactly. Rows that were never seen are left out of the mean, so
    the first epoch has no consistency term (the published code sets its weight to 0). The published code also averages
    the zeros of rows in that an epoch's incomplete last batch dropped; here n_i counts per row.

    The published update comes at the end of each epoch. Here a row's comes at once, after its old target was used: as
    each row is drawn once per epoch, it meets the same target either way. A row that stands in one batch twice, at the
    end of one epoch and the beginning of the next, meets its old target both times, and is updated twice, in order.
    In a distributed training every process updates the rows of all. Source: Laine and Aila 2017, ICLR; official code.

    The published weight is 30 times the labelled share of the training set, which is 30 here (see `PiModel`).

    Args:
        weight: maximal consistency weight, squared error as a mean over classes.
        alpha: decay of the moving average, in [0,1).
        ramp: how the weight rises.
        ramp_length: share of the training that the rise takes (published: 80 of 300 epochs).
    """

    needs: ClassVar[Needs] = Needs(views=1)
    cost: ClassVar[Cost] = Cost(f=1, F=1, b=1, B=1)
    source: ClassVar[str] = "Laine & Aila 2017 (ICLR)"
    origins: ClassVar[Mapping[str, Origin]] = {
        "weight": "official-code",
        "alpha": "official-code",
        "ramp": "official-code",
        "ramp_length": "official-code",
    }

    weight: float = 30.0
    alpha: float = 0.6
    ramp: RampName = "sigmoid"
    ramp_length: float = 80 / 300

    def __post_init__(self) -> None:
        check("weight", self.weight, low=0)
        check("alpha", self.alpha, low=0)
        if not self.alpha < 1:
            raise InputError(f"alpha must be less than 1, got {self.alpha}; 0 keeps the latest prediction alone")
        check("ramp_length", self.ramp_length, low=0, high=1)

    def prepare(self, context: Context) -> None:
        """Make an empty bank.

        Raises:
            InputError: the number of training rows is not known.
        """
        if not context.rows:
            raise InputError("temporal ensembling: keeps a row per training example; say how many there are (rows)")
        classes = context.network.classes
        assert isinstance(classes, int)
        device = next(context.network.parameters()).device
        self.register_buffer("predictions", torch.zeros(context.rows, classes, device=device))
        self.register_buffer("times", torch.zeros(context.rows, dtype=torch.int64, device=device))

    def loss(self, step: Step) -> dict[str, Term]:
        rows = step.u_index
        assert rows is not None
        supervised = cross_entropy(step.y, step.student(step.x)).mean()
        logits = step.student(step.u[0])
        target, seen = self.targets(rows)
        errors = torch.where(seen, squared_error(target, logits), 0)
        # A quotient and not a mean: with nothing seen it is 0, and has a graph.
        consistency = errors.sum() / seen.sum().clamp(min=1)
        self.update(gathered(rows), gathered(full_precision(logits.detach()).softmax(dim=1)))
        weight = self.weight * ramp(self.ramp, step.progress, self.ramp_length)
        return {"supervised": Term(supervised), "consistency": Term(consistency, weight)}

    def targets(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Ensembled predictions (B, C) of rows int64 (B,), zeros where there is none yet; and where there is one."""
        bank, seen = self._bank()
        times = seen[rows]
        share = 1 - self.alpha ** times.clamp(min=1).to(bank.dtype)
        return bank[rows] / share[:, None], times > 0

    @torch.no_grad()
    def update(self, rows: Tensor, predictions: Tensor) -> None:
        """Let predictions (B, C) into rows int64 (B,) of the bank; a row that comes twice counts twice, in order."""
        bank, seen = self._bank()
        same = rows[:, None] == rows
        times, later = same.sum(dim=1), same.triu(diagonal=1).sum(dim=1)
        last = (same * torch.arange(len(rows), device=rows.device)).amax(dim=1)
        shares = (1 - self.alpha) * self.alpha ** later.to(predictions.dtype)
        added = torch.zeros_like(predictions).index_add_(0, last, shares[:, None] * predictions)
        kept = self.alpha ** times.to(predictions.dtype)
        # Whoever writes a row that comes twice writes the same, so the order of writing does not count.
        bank[rows] = kept[:, None] * bank[rows] + added[last]
        seen[rows] += times

    def _bank(self) -> tuple[Tensor, Tensor]:
        """Sums Z (rows, C), and how often each row has been seen, int64 (rows,)."""
        return cast(Tensor, self.predictions), cast(Tensor, self.times)


def gathered(rows: Tensor) -> Tensor:
    """Rows (B, ...) of all processes of a distributed training, in the order of the whole batch; else ``rows``.

    Process r of w has rows r, r + w, r + 2 w ... of the whole batch, as many as each other.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)
