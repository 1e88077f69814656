"""A record of every pass that a training step makes, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.networks import Autoencoder, Parts


@dataclass
class Pass:
    """One pass that a method made.

    Attributes:
        network: "student", "teacher" or "second" (an autoencoder or generator).
        batch: "f" for the labelled batch, "F" for the unlabelled one, "h" for the head alone; "e" and "d" for a second
            network's encoder and decoder.
        x: what went in.
        dtype: of the logits that came out.
        updated: whether any buffer changed.
        backward: for each backward pass through it, "search" or "loss".
    """

    network: str
    batch: str
    x: Tensor
    dtype: torch.dtype | None = None
    updated: bool = False
    backward: list[str] = field(default_factory=list)


class Recorder:
    """Notes every forward pass of the networks that it watches, and every backward pass through those.

    Args:
        labelled: size of the labelled batch, which tells f from F.
    """

    def __init__(self, labelled: int) -> None:
        self.labelled = labelled
        self.passes: list[Pass] = []
        self.phase = "search"
        self._inside = False

    def watch(self, name: str, network: nn.Module) -> None:
        """Note this network's passes, and those of its head alone."""
        before: list[Tensor] = []

        def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if module is not network and self._inside:
                return
            self._inside = self._inside or module is network
            before[:] = [buffer.clone() for buffer in module.buffers()]
            batch = "h" if module is not network else "f" if len(inputs[0]) == self.labelled else "F"
            self.passes.append(Pass(name, batch, inputs[0]))

        def leave(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | Parts) -> None:
            if module is not network and self._inside:
                return
            self._inside = False
            made = self.passes[-1]
            result = output.features if isinstance(output, Parts) else output
            made.dtype = result.dtype
            made.updated = any(not torch.equal(old, new) for old, new in zip(before, module.buffers(), strict=True))
            self._follow(made, output.map if isinstance(output, Parts) and output.map is not None else result)

        for module in (network, getattr(network, "head", None)):
            if module is not None:
                module.register_forward_pre_hook(enter)
                module.register_forward_hook(leave)

    def watch_generator(self, generator: nn.Module) -> None:
        """Note the passes of a generator."""

        def leave(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.passes.append(Pass("second", "d", inputs[0], output.dtype))
            self._follow(self.passes[-1], output)

        generator.register_forward_hook(leave)

    @contextmanager
    def second(self, autoencoder: Autoencoder) -> Iterator[None]:
        """Note the passes of an autoencoder's halves."""

        def noted(batch: str, half: Any) -> Any:
            def call(x: Tensor) -> Tensor:
                output: Tensor = half(x)
                self.passes.append(Pass("second", batch, x, output.dtype))
                self._follow(self.passes[-1], output)
                return output

            return call

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(autoencoder, "encode", noted("e", autoencoder.encode))
            patch.setattr(autoencoder, "decode", noted("d", autoencoder.decode))
            yield

    def _follow(self, made: Pass, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: made.backward.append(self.phase))
