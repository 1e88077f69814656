"""Figures from sums alone: what is kept adds up over batches, over objects and over processes."""

from __future__ import annotations

import copy
from typing import ClassVar, Self

import torch
from torch import Tensor, distributed

from vicinal.errors import InputError


class RunningSums:
    """A state of sums, float64, that lies where the last batch was; no batch waits for the device.

    Attributes:
        sums: count, sum of confidences and number correct along the first axis, bins along the last.
    """

    _names: ClassVar[tuple[str, ...]] = ("sums",)
    """The attributes that make up the state."""
    sums: Tensor

    @property
    def n(self) -> int:
        """Number of examples."""
        # Where there is an axis of classes in between, each class has counted every example.
        return int(self.sums[0].reshape(-1, self.sums.shape[-1])[0].sum())

    def merge(self, other: Self) -> None:
        """Add what another one has seen.

        Raises:
            InputError: it has other bins, or other classes.
        """
        if other.sums.shape != self.sums.shape:
            raise InputError(f"calibration: cannot merge {other._said()} into {self._said()}; use the same number")
        self._add(*other._state())

    def reduced(self) -> Self:
        """What all processes of a distributed evaluation have seen, each on its share of the examples.

        All of them have to call it, with states of one shape; it may be called again as more is seen, as it changes
        nothing. Without a process group it is a copy.
        """
        total = copy.copy(self)
        if distributed.is_available() and distributed.is_initialized():
            # A process without examples has its state on the CPU, which NCCL cannot add to the others'.
            nccl = "nccl" in distributed.get_backend()
            place = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
            packed = torch.cat([tensor.flatten().to(place) for tensor in self._state()])
            distributed.all_reduce(packed)
            parts = packed.split([tensor.numel() for tensor in self._state()])
            for name, part, own in zip(self._names, parts, self._state(), strict=True):
                setattr(total, name, part.view_as(own))
        return total

    def _state(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, name) for name in self._names)

    def _add(self, *added: Tensor) -> None:
        # Into new tensors, so that a copy of this object keeps its own.
        for name, own, more in zip(self._names, self._state(), added, strict=True):
            setattr(self, name, own.to(more.device) + more)

    def _some(self) -> int:
        if not (n := self.n):
            raise InputError("calibration: nothing was measured; give at least one example")
        return n

    def _said(self) -> str:
        """Its shape in words."""
        return f"{self.sums.shape[-1]} bins"
