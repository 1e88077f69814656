"""What is counted while a step or its floor runs, and what a step computes that the letters of its method leave out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from step_floor import Subject
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vicinal.networks import Autoencoder, Classifier


class Counts(NamedTuple):
    """What was counted while something ran.

    Attributes:
        flops: floating-point operations of convolutions and matrix products (torch's formulas).
        calls: calls of ATen operators.
    """

    flops: int
    calls: int


class Beside(NamedTuple):
    """What a step computes that is not in its letters, or leaves out although it is.

    Attributes:
        flops: of a step minus those of its floor, in closed form.
        why: what they are.
    """

    flops: Callable[[Subject], int]
    why: str


def head_flops(subject: Subject) -> int:
    """One pass of a linear head on an unlabelled batch; a full backward pass is two, one to the features alone one."""
    network = cast(Classifier, subject.module.student)
    return 2 * subject.unlabelled * cast(int, network.feature_dim) * network.classes


def _position_heads(subject: Subject) -> int:
    heads = cast(nn.ModuleList, subject.method.heads)
    return (3 * len(heads) - 2) * head_flops(subject)


def _products_of_codes(subject: Subject) -> int:
    # Of codes with codes, codes with normal draws, draws with draws; back to one factor or to both.
    latent = cast(Autoencoder, subject.module.student).latent
    return (3 + 2 + 1) * 2 * subject.unlabelled**2 * latent


_CVT = Beside(
    _position_heads,
    "a head for each position of the feature map, forward and backward; no backward pass of the head itself there",
)
BESIDE: dict[str, Beside] = {
    "mean_teacher_fast_swa": Beside(lambda subject: 3 * head_flops(subject), "a second head, forward and backward"),
    "cvt": _CVT,
    "cvt_vat": _CVT,
    "ct_gan": Beside(
        lambda subject: -3 * head_flops(subject),
        "the generator's step leaves out the head, in one forward pass and in one both ways",
    ),
    "mmd_vae": Beside(_products_of_codes, "the kernels of the MMD take products of all pairs of codes"),
}
"""By the method's name; the others compute what their letters say, to the last operation."""


def count(run: Callable[[], Any]) -> Counts:
    """What a call without arguments does, counted."""
    with _Counter() as counter:  # type: ignore[no-untyped-call]
        run()
    return Counts(counter.flops, counter.calls)


class _Counter(TorchDispatchMode):
    """Counts the operators that reach the dispatcher below autograd.

    torch's own FlopCounterMode also follows modules, which fails where a gradient is taken for a network's very input,
    as attacks do.
    """

    flops = 0
    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        self.calls += 1
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=made)
        return made
