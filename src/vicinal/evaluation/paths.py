"""Error along straight paths between examples: what a network says between what it was asked to learn.

A point lam x_i + (1 - lam) v_j lies between an example and a partner, where v is the partner itself (real-real) or an
attacked copy of it (real-adversarial). A prediction there is correct if it is the true label of either end. So the
error at lam = 1 is not the test error: a wrong guess can be the partner's label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast, get_args

import torch
from torch import Tensor, nn

from vicinal.errors import InputError, nearest
from vicinal.evaluation.attacks import GradientAttack, SpaceName, perturb
from vicinal.networks import EVAL, Classifier, applied
from vicinal.randomness import generator
from vicinal.settings import check
from vicinal.vicinity import full_precision, mix

LAMBDAS = tuple(k / 20 for k in range(21))
"""The published ones: 0, 0.05, ..., 1."""

PathAttack = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]
"""An attack of one's own: from a network, inputs (B, ...), their true classes (B,) and a CPU generator to attacked
inputs like the inputs. The network takes inputs in the space of the paths and gives logits."""


@dataclass(frozen=True)
class InterpolationPaths:
    """Errors along paths.

    Args:
        n: number of paths of each kind: one for each example and lambda.
        space: where they are straight, ``"pixels"`` or ``"input"``.
        lambdas: weights of the unattacked end x_i.
        errors: for ``"real-real"``, and ``"real-adversarial"`` if there was an attack, the share of points for each
            lambda at which the prediction is neither end's true label, in [0,1].
    """

    n: int
    space: SpaceName
    lambdas: tuple[float, ...]
    errors: dict[str, tuple[float, ...]]


def interpolation_paths(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    attack: GradientAttack | PathAttack | None = None,
    lambdas: Sequence[float] = LAMBDAS,
    *,
    seed: int,
    space: SpaceName = "pixels",
) -> InterpolationPaths:
    """Error at points between each example and a random partner of its batch, in eval mode.

    Partners are a fresh permutation of the batch for each lambda, in which an example may be its own partner. Both
    kinds of path have the same partners (our choice: their difference is then the attack's doing), so both errors are
    equal at lambda = 1. Where every pair comes up equally often, the real-real error is the same at lambda and
    1 - lambda; the other is not. Parameters, flags and buffers stay as they were.

    Args:
        network: from inputs in data space to logits (B, C); a `Classifier` if ``space`` is ``"input"``.
        batches: inputs and true classes, int64 (B,). Published: the test set in batches of 100. The numbering of
            batches is part of the draws.
        attack: makes the attacked copies, once for each batch: a gradient attack such as ``FGM(epsilon=8)``, or a
            function. All examples are perturbed, also those that are wrong as they are. None leaves real-adversarial
            paths out. Which attack and radius the published figure has is not known.
        lambdas: weights of x_i, in [0,1].
        seed: of the partners and of the attack.
        space: where points are mixed and attacked: ``"pixels"`` is data space, ``"input"`` the network's preprocessed
            input.

    Raises:
        InputError: no examples, a lambda out of [0,1], another space, a network without the asked space, inputs outside
            of a gradient attack's bounds, or a function that gives another shape.

    Source: the interpolation-path study in the official code of AdvMixup.

    >>> network, x, y = nn.Linear(1, 2, bias=False), torch.tensor([[-1.0], [-2.0]]), torch.tensor([0, 0])
    >>> network.weight.data = torch.tensor([[-1.0], [1.0]])
    >>> def mirrored(network, x, y, draws):
    ...     return -x
    >>> interpolation_paths(network, [(x, y)], mirrored, [0.25, 1.0], seed=0).errors
    {'real-real': (0.0, 0.0), 'real-adversarial': (1.0, 0.0)}
    """
    if space not in get_args(SpaceName):
        raise InputError(f"space: unknown {space!r}; {nearest(space, get_args(SpaceName))}")
    if not lambdas:
        raise InputError("lambdas: there are none; give at least one number in [0,1]")
    for lam in lambdas:
        check("lambdas", lam, low=0, high=1)
    seen = network if space == "pixels" else _FromInput(network)
    wrong: dict[str, Tensor] = {}
    n = 0
    with applied(network, EVAL), applied(seen, EVAL):
        for index, (x, y) in enumerate(batches):
            points = full_precision(x.detach())
            if isinstance(seen, _FromInput):
                points = seen.inputs(points)
            ends = {"real-real": points}
            if isinstance(attack, GradientAttack):
                found = perturb(network, x, y, attack, seed=seed, batch=index, space=space, count="last")
                ends["real-adversarial"] = found.x.to(points)
            elif attack is not None:
                draws = generator(seed, "path attack", index)
                ends["real-adversarial"] = _attacked(attack, seen, points, y, draws)
            for kind, end in ends.items():
                counts = torch.stack(
                    [
                        _wrong(seen, points, end, y, lam, generator(seed, "path", place, index))
                        for place, lam in enumerate(lambdas)
                    ]
                )
                wrong[kind] = wrong.get(kind, torch.zeros_like(counts)) + counts
            n += len(y)
    if not n:
        raise InputError("paths: there are no examples to measure; give at least one batch")
    errors = {kind: tuple((counts.double() / n).tolist()) for kind, counts in wrong.items()}
    return InterpolationPaths(n, space, tuple(float(lam) for lam in lambdas), errors)


class _FromInput(nn.Module):
    """A classifier as it is seen from its preprocessed input."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, Classifier):
            raise InputError(
                f"space: 'input' needs a network with a preprocessing layer, not {type(network).__name__}; use 'pixels'"
            )
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.network(x, preprocessed=True))

    @torch.no_grad()
    def inputs(self, x: Tensor) -> Tensor:
        """What the network's body is given for ``x`` in data space."""
        return cast(Tensor, self.network.preprocess(x))


def _attacked(attack: PathAttack, network: nn.Module, x: Tensor, y: Tensor, draws: torch.Generator) -> Tensor:
    with torch.enable_grad():
        moved = attack(network, x, y, draws).detach()
    if moved.shape != x.shape:
        raise InputError(f"paths: the attack made {tuple(moved.shape)} of inputs {tuple(x.shape)}; keep their shape")
    return moved.to(x)


@torch.no_grad()
def _wrong(network: nn.Module, x: Tensor, end: Tensor, y: Tensor, lam: float, draws: torch.Generator) -> Tensor:
    """How many predictions are neither end's label, int64 (), left on the device."""
    partner = torch.randperm(len(y), generator=draws).to(x.device)
    weight = torch.full((len(y),), lam, dtype=x.dtype, device=x.device)
    predicted = network(mix(x, end[partner], weight)).argmax(dim=1)
    return torch.count_nonzero((predicted != y) & (predicted != y[partner]))
