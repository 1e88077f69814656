"""The same attacks by other libraries, on the same network and data: foolbox, torchattacks. And AutoAttack.

What they attack is the network in eval mode in data space, and their only result is one point per example, so what
counts is always that point (``count="last"``). Where an algorithm is deterministic, that point is ours.

Nothing of the network changes: foolbox calls ``backward``, which would add to the parameters' ``.grad``, so parameters
are frozen meanwhile; both draw random starts from the global generators, which are seeded for that and then put back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from vicinal.errors import InputError, MissingExtraError, nearest, require
from vicinal.evaluation.attacks.algorithms import APGD, FGM, FGSM, PGD, GradientAttack, MomentumPGD
from vicinal.evaluation.attacks.losses import log_odds_against
from vicinal.evaluation.attacks.search import Bounds, Perturbed, Scene
from vicinal.evaluation.attacks.tables import RobustnessTable
from vicinal.randomness import seed_global, seed_of
from vicinal.settings import check
from vicinal.vicinity.projected import NormName, check_norm

PeerName = Literal["foolbox", "torchattacks"]


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """The standard version of AutoAttack, which only ``"torchattacks"`` has: four attacks, each on those still right.

    They are Auto-PGD on the cross-entropy, Auto-PGD towards each of the nine most likely wrong classes, the boundary
    attack FAB towards the same, and Square, a search that uses no gradients. It takes thousands of passes.

    Args:
        norm: of the ball: ``"linf"``, or ``"l2"`` over all entries of an input.
        epsilon: radius, >= 0, in units of pixels in [0,1]. With 0 nothing is attacked.
        steps: of Auto-PGD towards each class, and of FAB, >= 1. The published standard is 100;
            ``torchattacks.AutoAttack`` (3.5.1) leaves them at its own default of 10 and takes no other number.
        queries: points that Square looks at, >= 1. The published standard is 5000.

    Raises:
        InputError: a setting is out of range.

    Source: Croce and Hein 2020.
    """

    norm: NormName
    epsilon: float
    steps: int = 100
    queries: int = 5000

    bounds: ClassVar[Bounds] = (0.0, 1.0)
    restarts: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_norm(self.norm)
        check("epsilon", self.epsilon, low=0)
        check("steps", self.steps, low=1)
        check("queries", self.queries, low=1)


PeerAttack: TypeAlias = GradientAttack | AutoAttack
"""What another library can be asked for."""


def peer_perturb(
    peer: PeerName, network: nn.Module, x: Tensor, y: Tensor, attack: PeerAttack, *, seed: int, batch: int = 0
) -> Perturbed:
    """One batch, attacked by another library with the settings of ours.

    foolbox has `FGM`, `FGSM` and `PGD` for any bounds. (It has a momentum method, but that accumulates signs or
    directions and not gradients: another algorithm.) torchattacks has these, `MomentumPGD` in Linf and `APGD`, for
    images (B, C, H, W) in [0,1] alone; its Auto-PGD starts on the surface of the ball and differs in details. It also
    has `AutoAttack`, for 4 classes and more.

    Args:
        peer: which library.
        network: from inputs in data space to logits (B, C).
        x: inputs (B, ...).
        y: true classes, int64 (B,).
        attack: with one start only, as a single point comes back.
        seed: of the random starts, which are the library's own.
        batch: number of this batch, part of the random starts.

    Raises:
        MissingExtraError: the library is not installed.
        InputError: it does not have this attack, or not for these inputs.
    """
    if peer not in get_args(PeerName):
        raise InputError(f"peer: unknown {peer!r}; {nearest(peer, get_args(PeerName))}")
    if attack.restarts > 1:
        raise InputError(f"restarts: {peer} gives one point per example; set restarts=1")
    scene = Scene(network, network, "pixels", log_odds_against)
    x = scene.start(x, attack.bounds)
    run = {"foolbox": _foolbox, "torchattacks": _torchattacks}[peer]
    with scene.opened(), _left_alone(network, seed_of(seed, peer, batch), x.device):
        moved = run(network, x, y, attack).detach() if attack.epsilon > 0 else x.clone()
        return Perturbed(moved, scene.wrong(moved, y))


def peer_robustness(
    peer: PeerName,
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    attack: PeerAttack,
    *,
    epsilons: Sequence[float],
    seed: int,
) -> RobustnessTable:
    """Errors at several radii as another library finds them: what `robustness` gives with ``count="last"``.

    Args:
        peer: which library.
        network: from inputs in data space to logits (B, C).
        batches: inputs in data space and true classes, int64 (B,).
        attack: its own ``epsilon`` is not used.
        epsilons: radii, each >= 0, in pixels.
        seed: of the random starts.

    Raises:
        MissingExtraError: the library is not installed.
        InputError: no radii, no examples, or what `peer_perturb` refuses.
    """
    if not len(epsilons):
        raise InputError("epsilons: there are none; give at least one radius")
    n, clean, lost = 0, 0, [0] * len(epsilons)
    for index, (x, y) in enumerate(batches):
        untouched = peer_perturb(peer, network, x, y, replace(attack, epsilon=0), seed=seed)
        n, clean = n + len(y), clean + int(untouched.wrong.sum())
        for place, epsilon in enumerate(epsilons):
            found = peer_perturb(peer, network, x, y, replace(attack, epsilon=epsilon), seed=seed, batch=index)
            lost[place] += int(found.wrong.sum())
    if not n:
        raise InputError("attack: there are no examples to attack; give at least one batch")
    return RobustnessTable(
        attack=f"{type(attack).__name__} ({peer})",
        norm=attack.norm,
        space="pixels",
        box="white",
        count="last",
        n=n,
        clean_error=clean / n,
        errors={epsilon: count / n for epsilon, count in zip(epsilons, lost, strict=True)},
    )


def _foolbox(network: nn.Module, x: Tensor, y: Tensor, attack: PeerAttack) -> Tensor:
    foolbox: Any = require("foolbox", "peers", "an attack by foolbox")
    attacks, prefix = foolbox.attacks, "Linf" if attack.norm == "linf" else "L2"
    if isinstance(attack, FGM):
        found = getattr(attacks, f"{prefix}FastGradientAttack")(random_start=False)
    elif isinstance(attack, PGD) and not isinstance(attack, MomentumPGD):
        found = getattr(attacks, f"{prefix}ProjectedGradientDescentAttack")(
            abs_stepsize=attack.length, steps=attack.steps, random_start=attack.random_start
        )
    else:
        raise InputError(f"peer: foolbox has no {type(attack).__name__} of this kind; use FGM, FGSM or PGD")
    model = foolbox.PyTorchModel(network, bounds=attack.bounds or (-math.inf, math.inf), device=x.device)
    _, moved, _ = found(model, x, y, epsilons=attack.epsilon)
    return moved  # type: ignore[no-any-return]


def _torchattacks(network: nn.Module, x: Tensor, y: Tensor, attack: PeerAttack) -> Tensor:
    try:
        library: Any = require("torchattacks", "peers", "an attack by torchattacks")
    except MissingExtraError as error:
        raise MissingExtraError(
            "an attack by torchattacks needs that package, which is not installed: pip install --no-deps torchattacks "
            "(what it says it depends on would replace torch, and is not needed)"
        ) from error
    if attack.bounds != (0, 1) or x.dim() != 4:
        raise InputError("peer: torchattacks attacks images (B, C, H, W) in [0, 1] alone; use foolbox")
    eps, linf = attack.epsilon, attack.norm == "linf"
    match attack:
        case FGSM():
            found = library.FGSM(network, eps=eps)
        case FGM():
            found = library.PGDL2(network, eps=eps, alpha=eps, steps=1, random_start=False)
        case MomentumPGD(random_start=False) if linf:
            found = library.MIFGSM(network, eps=eps, alpha=attack.length, decay=attack.momentum, steps=attack.steps)
        case PGD() if not isinstance(attack, MomentumPGD):
            made = library.PGD if linf else library.PGDL2
            found = made(network, eps=eps, alpha=attack.length, steps=attack.steps, random_start=attack.random_start)
        case APGD(random_start=True, momentum=0.75):
            found = library.APGD(network, **_ball(attack), steps=attack.steps, rho=attack.rho)
        case AutoAttack():
            found = _auto_attack(library, network, x, attack)
        case _:
            raise InputError(f"peer: torchattacks has no {type(attack).__name__} with these settings; use PGD")
    return found(x, y)  # type: ignore[no-any-return]


def _auto_attack(library: Any, network: nn.Module, x: Tensor, attack: AutoAttack) -> Any:
    """Put together from its parts, as the library's own takes no number of steps."""
    with torch.no_grad():
        classes = network(x[:1]).shape[1]
    if classes < 4:
        raise InputError(f"peer: AutoAttack compares the 4 largest logits, and there are {classes}; use APGD")
    few: Any = {"steps": attack.steps, **_ball(attack)}
    towards: Any = {**few, "n_classes": min(classes, 10)}  # the true class and the nine most likely wrong ones
    parts = [
        library.APGD(network, **few),
        library.APGDT(network, **towards),
        library.FAB(network, **towards, multi_targeted=True),
        library.Square(network, **_ball(attack), n_queries=attack.queries),
    ]
    return library.MultiAttack(parts)


def _ball(attack: PeerAttack) -> dict[str, Any]:
    """For those that seed the generators themselves."""
    norm = "Linf" if attack.norm == "linf" else "L2"
    return {"norm": norm, "eps": attack.epsilon, "seed": torch.initial_seed() % 2**31}


@contextmanager
def _left_alone(network: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Nothing inside reaches a parameter's ``.grad``, or moves a global generator for those outside."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=devices, device_type=device.type if devices else "cuda"):
        seed_global(seed, device)
        try:
            for parameter in learning:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)
