"""What the theory of mixup says of a finished run: its statements on a sample of what it was trained on, with figures.

The room that computes the statements is `vicinal.theory`, and knows of no runs; here a run becomes a network and a
sample, attacks come from `vicinal.evaluation`, and the run is trained once more to see the mixup loss along the way.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import vicinal
from vicinal import machine
from vicinal.assembling import Assembled
from vicinal.data import Examples, eval_batches
from vicinal.errors import InputError
from vicinal.evaluating import check_data, trained
from vicinal.evaluation import APGD
from vicinal.methods import Method, TemporalEnsembling
from vicinal.networks import Classifier
from vicinal.randomness import generator
from vicinal.runs import Run
from vicinal.settings import check
from vicinal.theorising.along import Looks, along, look_steps
from vicinal.theorising.attacks import STEPS, Attacked, loss_curve
from vicinal.theorising.minimised import beside
from vicinal.theorising.smoothness import smoothness_figures
from vicinal.theory import SpaceName, Trained, mixup_radius, statements

__all__ = ["REPLAY_SECONDS", "Attacked", "check_run", "look_steps", "smoothness_figures", "theorise"]

REPLAY_SECONDS = 60.0
"""How long a training may have taken for it to be repeated without being asked to, our choice."""
HELD_OUT = 500
"""Examples that were not trained on, at most, for the generalisation gap."""
_FEWER = 50  # examples at each look along the training


def theorise(
    run: Run,
    *,
    n: int = 100,
    alpha: float | None = None,
    seed: int = 0,
    space: SpaceName | None = None,
    replay: bool | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """All that the theory says of a run, as plain values.

    The statements are about the mixup loss of the trained network on a sample of its labelled training examples, as
    they lie in the data set, without augmentation, whether or not that loss is what the run minimised.

    Args:
        run: a run whose training is complete.
        n: examples in the sample, >= 2, drawn from the labelled ones; all of them where there are fewer.
        alpha: of the mixing law Beta(alpha, alpha), > 0; None for that of the run's method, or 1 where it has none.
        seed: of the sample and of all other draws.
        space: see `vicinal.theory.Trained`; None for ``"input"``, or ``"pixels"`` where the preprocessing is not
            affine.
        replay: train the run once more, to look at its mixup loss along the way; None: if it took `REPLAY_SECONDS` at
            most.
        progress: say on standard error what is under way, a line for each part, with a progress bar of the training.

    Returns:
        What `vicinal.theory.statements` gives, and ``run``, ``data``, ``method``, ``backbone``, ``parameters``,
        ``alpha_from``, ``minimised`` (whether the run minimised this mixup loss and nothing else), ``up_to`` (what its
        training had besides, if that loss was its method's; else None, see `vicinal.theorising.minimised.beside`),
        ``sample``, ``held_out``, ``cosines`` (R_i, ascending), ``curve`` (losses at multiples of each example's
        radius), ``smoothness`` (see `smoothness_figures`), ``training`` or else ``no_training`` (why not), ``version``,
        ``commit`` and ``seconds``.

    Raises:
        InputError: as for `check_run`, an argument is out of range, or no gradient reaches the inputs.
        KeyboardInterrupt: stopped; nothing was written.
    """
    started = time.perf_counter()
    check("n", n, low=2)
    about = run.evaluation()["provenance"]
    network, parts = _subject(run)
    chosen, alpha_from = (alpha, "--alpha") if alpha is not None else _alpha_of(parts.method)
    where: SpaceName = space or ("input" if network.preprocess.affine else "pixels")
    rows = _sample(parts, n, seed)
    x, y = _all(Examples(parts.dataset.train.x[rows], parts.dataset.train.y[rows]))
    name, held = _held_out(parts)
    told = _teller(run) if progress else _silent
    found = statements(network, x, y, alpha=chosen, seed=seed, space=where, test=held, attack=Attacked(APGD), told=told)
    up_to = beside(parts, network, chosen)
    values: dict[str, Any] = {
        "run": str(run.path),
        "data": parts.experiment.data.name,
        **{key: about[key] for key in ("method", "backbone", "parameters")},
        "alpha_from": alpha_from,
        "minimised": up_to == [],
        "up_to": up_to,
        "sample": {"n": len(rows), "of": len(parts.split.labelled), "rows": rows.tolist()},
        "held_out": None if held is None else {"part": name, "n": len(held[1])},
        **found,
        "cosines": [],
        "curve": None,
        "training": None,
    }
    if not found["assumptions"]["separate"]["holds"]:
        why = "an output depends on other examples, so that there is no loss of an example"
        return {**values, "smoothness": [], "no_training": why, **_made(started)}
    if attacked := found["statements"]["attack"]["values"]:
        attacked["attacked_by"] = f"Auto-PGD in L2, {STEPS} steps, not clipped"
    model = Trained(network, x, y, space=where)
    radii = mixup_radius(model.log_odds, model.x, model.ones, chosen)
    values["cosines"] = radii.cosine.sort().values.tolist()
    told("losses by radius")
    values["curve"] = loss_curve(model, radii.l2)
    told("smoothness")
    values["smoothness"] = smoothness_figures(network, x, y, seed=seed)
    values["no_training"] = _not_again(about["training_seconds"], replay)
    if values["no_training"] is None:
        told("the training, once more")
        try:
            few = Looks(x[:_FEWER], y[:_FEWER], held, where, chosen, seed)
            values["training"] = along(run, parts, few, progress=progress)
        except InputError as error:
            values["no_training"] = str(error)
    return {**values, **_made(started)}


def check_run(run: Run) -> None:
    """Refuse a run that nothing can be said of, before work is spent on it or on others beside it.

    Args:
        run: the run; its data are read.

    Raises:
        InputError: training is not complete, the run trained no classifier, it was not evaluated, or its data are not
            there or have changed.
    """
    run.evaluation()
    _subject(run)


def _subject(run: Run) -> tuple[Classifier, Assembled]:
    """The trained network of a run, and its parts with the data that it was trained on."""
    trained(run)
    network = run.network("last").network
    if not isinstance(network, Classifier):
        raise InputError(f"{run.path}: trained no classifier, and the theory is about the loss of one")
    parts = Assembled(run.experiment)
    check_data(run, parts.dataset, parts.split)
    return network, parts


def _teller(run: Run) -> Callable[[str], None]:
    """Says on standard error which part is under way: a large sample takes long."""
    return lambda part: print(f"vicinal theory {run.path}: {part}", file=sys.stderr, flush=True)


def _silent(_part: str) -> None:
    pass


def _not_again(seconds: float, replay: bool | None) -> str | None:
    """Why a run is not trained again; None if it is."""
    if replay or (replay is None and seconds <= REPLAY_SECONDS):
        return None
    if replay is None:
        return f"training took {seconds:.0f} s, and more than {REPLAY_SECONDS:.0f} s are repeated with --replay only"
    return "not asked for; --replay trains the run once more and looks at it on the way"


def _alpha_of(method: Method) -> tuple[float, str]:
    """Of the method's mixing law, and where it is from."""
    alpha = getattr(method, "alpha", None)
    if isinstance(alpha, float | int) and not isinstance(method, TemporalEnsembling):  # whose alpha is a decay
        return float(alpha), "the method's"
    return 1.0, "our choice, as the method has none"


def _sample(parts: Assembled, n: int, seed: int) -> Tensor:
    """Rows of the training part, int64, of examples that were trained on with their labels, at most ``n`` of them."""
    rows = parts.split.labelled
    # In random order where all are taken, too: its first rows are what is looked at along the training.
    return rows[torch.randperm(len(rows), generator=generator(seed, "theory sample"))[:n]]


def _held_out(parts: Assembled) -> tuple[str, tuple[Tensor, Tensor] | None]:
    """The test part, or else the validation part, evenly thinned, and which of them it is."""
    test = parts.dataset.test
    name, examples = (
        ("test", test) if test is not None else ("validation", parts.split.validation_examples(parts.dataset))
    )
    return name, None if examples is None else _all(examples.spread(HELD_OUT))


def _all(examples: Examples) -> tuple[Tensor, Tensor]:
    """All examples at once, float32 in data space."""
    x, y = zip(*eval_batches(examples, HELD_OUT), strict=True)
    return torch.cat(x), torch.cat(y)


def _made(started: float) -> dict[str, Any]:
    seconds = round(time.perf_counter() - started, 2)
    return {"version": vicinal.__version__, "commit": machine.commit(), "seconds": seconds}
