"""The loop that every attack here runs in: who is attacked, with whose gradients, in which space, and what counts.

Two rules of counting:

* ``"visited"``: an input is lost if it is wrong as it is, or at any point that the attack visited. It then leaves the
  batch, so what comes after costs only what is left. The attacker sees the predictions.
* ``"last"``: all inputs are perturbed, also those that are wrong as they are, and only the prediction at the point that
  the attack ends with counts. A wrong one may thereby become right. This is how single-step tables are published.

Two spaces:

* ``"pixels"``: the perturbation is added to the network's input, preprocessing comes after it, and results are clipped
  to the bounds of the data.
* ``"input"``: it is added to what the preprocessing layer gives, and nothing is clipped. Radii are in units of that
  layer's output and mean another thing for every preprocessing; a perturbed input need not be any image's.

With a ``source`` (black box), gradients are those of another network. In pixels each network preprocesses the same
image in its own way. In the input space the image is preprocessed by the *source*, perturbed there, and fed straight
into the body of the target, as published. Where the two networks preprocess differently, the target then also suffers
from inputs scaled in a way that it was not trained on, so the error at radius 0 is not its ordinary error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias, cast, get_args

import torch
from torch import Tensor, nn

from vicinal.errors import InputError, nearest
from vicinal.evaluation.attacks.losses import Loss
from vicinal.networks import EVAL, Classifier, applied
from vicinal.randomness import generator
from vicinal.vicinity import full_precision
from vicinal.vicinity.projected import NormName, input_gradient, project, random_start

SpaceName = Literal["pixels", "input"]
CountName = Literal["visited", "last"]
Bounds: TypeAlias = tuple[float, float] | None
Rows: TypeAlias = dict[str, Tensor]
"""The state of an attack by name, each tensor with one row per input that is still attacked."""


class Perturbed(NamedTuple):
    """Inputs after an attack.

    Attributes:
        x: (B, ...), in the space that was attacked in, at least float32, detached. The point that counted: with
            ``"visited"`` the first wrong one (the input itself where it is wrong as it is), else where the attack
            ended.
        wrong: whether the prediction there is wrong, bool (B,).
    """

    x: Tensor
    wrong: Tensor


class Ascent(Protocol):
    """What the loop needs to know of an attack.

    ``rows`` hold ``x`` (the inputs), ``y``, ``point`` (where the attack stands), and ``value`` and ``gradient`` of the
    loss there; an attack may add its own, such as a velocity.
    """

    @property
    def norm(self) -> NormName: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def restarts(self) -> int: ...
    @property
    def random_start(self) -> bool: ...
    @property
    def keeps_best(self) -> bool:
        """Whether the attack ends with ``rows["best"]`` instead of ``rows["point"]``."""

    def observe(self, rows: Rows, step: int) -> None:
        """Take note of the value at the point after so many steps."""

    def advance(self, rows: Rows, step: int, bounds: Bounds) -> None:
        """Move ``rows["point"]`` by one step, inside the ball and the bounds."""


@dataclass(frozen=True)
class Scene:
    """Who is attacked, and how.

    Args:
        target: whose predictions count, from inputs in data space to logits (B, C), C >= 2.
        source: whose gradients lead the attack; the target itself for a white box.
        space: where the perturbation is added.
        loss: what is made large.

    Raises:
        InputError: an unknown space, or a network that has no preprocessing layer to go behind.
    """

    target: nn.Module
    source: nn.Module
    space: SpaceName
    loss: Loss

    def __post_init__(self) -> None:
        if self.space not in get_args(SpaceName):
            raise InputError(f"space: unknown {self.space!r}; {nearest(self.space, get_args(SpaceName))}")
        if self.space == "input" and not all(isinstance(net, Classifier) for net in (self.target, self.source)):
            raise InputError(
                "space: 'input' needs networks with a preprocessing layer of their own (Classifier); use 'pixels'"
            )

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Both networks in eval mode; everything is put back afterwards."""
        with ExitStack() as stack:
            for network in {id(net): net for net in (self.target, self.source)}.values():
                stack.enter_context(applied(network, EVAL))
            yield

    def start(self, x: Tensor, bounds: Bounds) -> Tensor:
        """The unperturbed inputs in the space of the attack, in at least float32.

        Raises:
            InputError: inputs lie outside of the bounds that hold in pixels.
        """
        x = full_precision(x.detach())
        if self.space == "pixels":
            if bounds is not None and bool(((x < bounds[0]) | (x > bounds[1])).any()):
                low, high = bounds
                raise InputError(
                    f"attack: inputs lie outside of [{low}, {high}]; give the data's bounds, or bounds=None"
                )
            return x
        with torch.no_grad():
            return full_precision(cast(Classifier, self.source).preprocess(x))

    def wrong(self, point: Tensor, y: Tensor) -> Tensor:
        """Whether the target is wrong, bool (B,)."""
        with torch.no_grad():
            return self._logits(self.target, point).argmax(dim=1) != y

    def look(self, rows: Rows, *, gradient: bool, value: bool, judge: bool) -> Tensor | None:
        """Set the loss's ``value`` and ``gradient`` at ``rows["point"]``; whether the target is wrong, if asked for.

        As few passes as that takes: in a white box one serves all.

        Raises:
            InputError: the loss is not one number per example, or no gradient reaches the inputs.
        """
        y, same = rows["y"], self.source is self.target
        if not (gradient or value or same):
            return self.wrong(rows["point"], y)
        with torch.set_grad_enabled(gradient):
            at = rows["point"].detach().requires_grad_(gradient)
            logits = self._logits(self.source, at)
            values = self.loss(logits, y)
        if values.shape != y.shape:
            raise InputError(
                f"loss: expected one number per example, shape {tuple(y.shape)}, got {tuple(values.shape)}"
            )
        if gradient:
            rows["gradient"] = input_gradient(values, at)
        rows["value"] = values.detach()
        if not judge:
            return None
        return logits.detach().argmax(dim=1) != y if same else self.wrong(rows["point"], y)

    def _logits(self, network: nn.Module, point: Tensor) -> Tensor:
        return cast(Tensor, network(point) if self.space == "pixels" else network(point, preprocessed=True))


def attacked(
    scene: Scene,
    attack: Ascent,
    x: Tensor,
    y: Tensor,
    wrong: Tensor,
    *,
    count: CountName,
    bounds: Bounds,
    seed: int,
    batch: int,
) -> Perturbed:
    """An attack with all its restarts on one batch, inside of an opened scene.

    Args:
        scene: who is attacked, and how.
        attack: with which steps. With radius 0 the inputs come back as they are, to the bit.
        x: inputs (B, ...) in the space of the scene, from `Scene.start`.
        y: true classes, int64 (B,).
        wrong: whether the target is wrong at ``x``, bool (B,), from `Scene.wrong`.
        count: what counts.
        bounds: of the data; they hold in pixels alone.
        seed: of the random starts.
        batch: number of the batch, part of the random starts.

    Raises:
        InputError: see `Scene.look`; or an unknown rule of counting.
    """
    if count not in get_args(CountName):
        raise InputError(f"count: unknown {count!r}; {nearest(count, get_args(CountName))}")
    found = Perturbed(x.clone(), wrong.clone())
    if attack.epsilon == 0:
        return found
    if count == "last":
        found.wrong.zero_()
    bounds = bounds if scene.space == "pixels" else None
    for restart in range(attack.restarts):
        point = x
        if attack.random_start:
            # Drawn for the whole batch, so that nobody's start depends on who has left. All attacks share the purpose's
            # name, so that they are compared from the same starts.
            moved = x + random_start(x, attack.norm, attack.epsilon, generator(seed, "pgd", restart, batch))
            point = project(x, moved, attack.norm, attack.epsilon, bounds)
        _attempt(scene, attack, {"x": x, "y": y, "point": point}, found, count, bounds)
    return found


def _attempt(scene: Scene, attack: Ascent, rows: Rows, found: Perturbed, count: CountName, bounds: Bounds) -> None:
    """One attempt on those that are not wrong in ``found`` yet, which is updated in place."""
    rows = rows | {"index": torch.arange(len(found.wrong), device=found.wrong.device)}
    rows = {name: rows[name][~found.wrong] for name in rows}
    visited = count == "visited"
    for step in range(attack.steps + (visited or attack.keeps_best)):
        if not len(rows["y"]):
            return
        wrong = scene.look(rows, gradient=step < attack.steps, value=attack.keeps_best, judge=visited)
        if wrong is not None and bool(wrong.any()):
            found.wrong[rows["index"][wrong]] = True
            found.x[rows["index"][wrong]] = rows["point"][wrong]
            rows = {name: rows[name][~wrong] for name in rows}
        attack.observe(rows, step)
        if step < attack.steps:
            attack.advance(rows, step, bounds)
    end = rows["best"] if attack.keeps_best else rows["point"]
    found.x[rows["index"]] = end
    if not visited and len(end):
        found.wrong[rows["index"]] = scene.wrong(end, rows["y"])
