"""Attack throughput: images per second of our attacks beside foolbox and torchattacks, in one run.

    python benchmarks/attack_throughput.py \\
        --json results/attack-throughput/results.json --markdown results/attack-throughput/table.md

All attack the same images with the same network, radius, steps and step length, from the images themselves, so that all
come to the same points. Timed is what it takes to know which images are fooled: torchattacks gives points, and one pass
is added to judge them; foolbox and ours judge their own. Where the fooled leave, ours passes the unperturbed images
through, too. The network has no gradients for its weights, or foolbox would compute them in each step.

One process, one thread, the C allocator tuned for all; all run in turn within each round, in an order that moves on
from round to round; a round of warm-up is thrown away; figures are medians over the rounds, ratios the medians of the
rounds' own. The network is a small CNN, trained briefly on CIFAR-10 if the environment variable VICINAL_DATA names a
folder that has it, else on digits blown up to 32x32; the images are such as it gets right.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal import machine
from vicinal.data import Dataset, as_float, load
from vicinal.evaluation.attacks import FGSM, PGD, GradientAttack, perturb
from vicinal.networks import folded, small_cnn
from vicinal.randomness import generator
from vicinal.reporting import Table
from vicinal.settings import Choice

SHAPE, CLASSES = (3, 32, 32), 10
PEERS = ("torchattacks", "foolbox")
ROUNDS = {"FGSM": (15, 5), "PGD-20": (7, 3), "PGD-100": (5, 2)}
"""Measured rounds, and those of a quick look."""
AIM = 1.5

Judged = Callable[[GradientAttack], Tensor]
"""Attacks the images, and says which are fooled, bool (B,)."""


@dataclass(frozen=True)
class Setting:
    """Who is attacked.

    Args:
        network: trained, in eval mode, without gradients for its weights.
        x: images that it gets right, float32 (B, 3, 32, 32) in [0,1].
        y: their classes, int64 (B,).
    """

    network: nn.Module
    x: Tensor
    y: Tensor


def read() -> Dataset:
    """CIFAR-10 where it is at hand, else the digits."""
    root = os.environ.get("VICINAL_DATA")
    return load(Choice("cifar10" if root and (Path(root) / "cifar10").is_dir() else "digits", {}))


def images(x: Tensor) -> Tensor:
    """Float images of the size that is attacked."""
    x = as_float(x)
    scale = SHAPE[1] // x.shape[2]
    return x.repeat_interleave(scale, 2).repeat_interleave(scale, 3).expand(-1, *SHAPE).contiguous()


def setting(data: Dataset, *, steps: int, batch: int) -> tuple[Setting, float]:
    """A trained network with images that it gets right; and its error on test images."""
    assert data.test is not None
    torch.manual_seed(0)
    network = small_cnn(SHAPE, CLASSES).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train, test = data.train.spread(10_000), data.test.spread(1000)
    rows, draws = torch.arange(len(train)), generator(0, "attack throughput")
    x, y = images(train.x[rows]), train.y
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(steps):
        chosen = torch.randint(len(train), (100,), generator=draws)
        optimiser.zero_grad()
        F.cross_entropy(network(x[chosen]), y[chosen]).backward()
        optimiser.step()
    network = network.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    x, y = images(test.x[torch.arange(len(test))]), test.y
    right = network(x).argmax(dim=1) == y
    return Setting(network, x[right][:batch], y[right][:batch]), 1 - float(right.double().mean())


def by_torchattacks(setting: Setting) -> Judged:
    """Its points, and a pass to judge them."""
    library: Any = importlib.import_module("torchattacks")

    def run(attack: GradientAttack) -> Tensor:
        if isinstance(attack, PGD):
            found = library.PGD(
                setting.network, eps=attack.epsilon, alpha=attack.length, steps=attack.steps, random_start=False
            )
        else:
            found = library.FGSM(setting.network, eps=attack.epsilon)
        moved = found(setting.x, setting.y)
        with torch.no_grad():
            wrong: Tensor = setting.network(moved).argmax(dim=1) != setting.y
        return wrong

    return run


def by_foolbox(setting: Setting) -> Judged:
    """Its own judgement."""
    library: Any = importlib.import_module("foolbox")
    model = library.PyTorchModel(setting.network, bounds=(0, 1), device="cpu")

    def run(attack: GradientAttack) -> Tensor:
        if isinstance(attack, PGD):
            found = library.attacks.LinfPGD(abs_stepsize=attack.length, steps=attack.steps, random_start=False)
        else:
            found = library.attacks.LinfFastGradientAttack(random_start=False)
        wrong: Tensor = found(model, setting.x, setting.y, epsilons=attack.epsilon)[2]
        return wrong

    return run


def by_ours(setting: Setting, *, leave: bool = False) -> Judged:
    """Ours, on all images up to the last step; or the fooled leave."""
    return lambda attack: (
        perturb(setting.network, setting.x, setting.y, attack, seed=0, count="visited" if leave else "last").wrong
    )


def contenders(setting: Setting, *, parts: bool) -> dict[str, Judged]:
    """Who runs, by name; with ``parts`` also each measure alone."""
    fast = Setting(folded(setting.network), setting.x, setting.y)
    found = {"torchattacks": by_torchattacks(setting), "foolbox": by_foolbox(setting), "ours": by_ours(setting)}
    if parts:
        last = copy.deepcopy(setting.network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found |= {
            "ours, channels last": by_ours(Setting(last, setting.x, setting.y)),
            "ours, folded": by_ours(Setting(folded(setting.network, channels_last=False), setting.x, setting.y)),
            "torchattacks on our folded, channels last": by_torchattacks(fast),
        }
    return found | {
        "ours, folded, channels last": by_ours(fast),
        "ours, folded, channels last, fooled leave": by_ours(fast, leave=True),
    }


def measure(
    name: str, attack: GradientAttack, runs: dict[str, Judged], rounds: int, batch: int
) -> list[dict[str, Any]]:
    """Times in ms, ratios to the faster peer, and who is fooled."""
    names, fooled = list(runs), {}
    clock: dict[str, list[float]] = {key: [] for key in names}
    busy: dict[str, list[float]] = {key: [] for key in names}
    for turn in range(rounds):
        for key in names[turn % len(names) :] + names[: turn % len(names)]:
            start, start_processor = time.perf_counter(), time.process_time()
            fooled[key] = runs[key](attack)
            busy[key].append(1e3 * (time.process_time() - start_processor))
            clock[key].append(1e3 * (time.perf_counter() - start))
    # By processor time, which other work on the machine disturbs less.
    faster = min(PEERS, key=lambda peer: statistics.median(busy[peer]))
    rows = []
    for key in names:
        ratios, processor = (
            [peer / own for peer, own in zip(times[faster], times[key], strict=True)] for times in (clock, busy)
        )
        low, _, high = statistics.quantiles(ratios, n=4)
        ms = statistics.median(clock[key])
        rows.append(
            {
                "attack": name,
                "by": key,
                "rounds": rounds,
                "ms": ms,
                "ms_processor": statistics.median(busy[key]),
                "images_per_second": 1e3 * batch / ms,
                "faster_peer": faster,
                "ratio": statistics.median(ratios),
                "ratio_quartiles": [low, high],
                "ratio_processor": statistics.median(processor),
                "fooled": float(fooled[key].double().mean()),
                "judged_like_torchattacks": float((fooled[key] == fooled["torchattacks"]).double().mean()),
            }
        )
    return rows


def table(rows: list[dict[str, Any]], described: dict[str, Any]) -> Table:
    """What was measured, and how."""

    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        low, high = row["ratio_quartiles"]
        return (
            row["attack"],
            row["by"],
            f"{row['images_per_second']:.0f}",
            f"{row['ms']:.1f}",
            f"{row['ratio']:.2f}",
            f"{low:.2f}-{high:.2f}",
            f"{row['ratio_processor']:.2f}",
            f"{100 * row['fooled']:.1f}",
            f"{100 * row['judged_like_torchattacks']:.1f}",
        )

    columns = ("attack", "by", "images/s", "ms", "ratio", "quartiles", "processor", "fooled %", "judged alike %")
    computer, task = described["machine"], described["task"]
    rounds = ", ".join(f"{row['attack']} {row['rounds']}" for row in {row["attack"]: row for row in rows}.values())
    notes = (
        "ratio: time of the faster peer over this one's, median of the rounds' own, with quartiles, and the same of "
        f"processor time; the aim is {AIM} or more. ms: for one batch, by the clock, median.",
        f"rounds: {rounds}, in turn, after one round of warm-up; one process, one thread, allocator "
        f"{'tuned for all' if described['allocator_tuned'] else 'as it is'}.",
        f"small_cnn (batch norm, leaky ReLU, max pooling) on {task['data']}, {task['training_steps']} steps, test "
        f"error {100 * task['test_error']:.1f} %; {task['images']} images 3x32x32 that it gets right; Linf radius "
        f"{255 * task['epsilon']:g}/255, steps of 2.5 radius / steps, no random start.",
        "torchattacks: with one pass more, to judge its points. ours: with one of the unperturbed images where the "
        "fooled leave, and there alone. Weights need no gradients, or foolbox would compute them.",
        "folded, channels last: `vicinal.networks.folded`, which any library may attack: the row of torchattacks on it "
        "tells what is due to the network's form alone.",
        "fooled leave: an image leaves the batch at the first point where it is fooled, and then counts whatever comes "
        "later; all others are judged at the last point. How much that saves depends on the share that is fooled.",
        "judged alike: share of images that are fooled here and by torchattacks, or by neither.",
        f"{computer['processor']}, torch {computer['torch']}, "
        + ", ".join(f"{name} {version}" for name, version in described["peers"].items())
        + f", commit {described['commit']}; {described['command']}",
    )
    return Table("Attack throughput", columns, tuple(cells(row) for row in rows), notes)


def main() -> None:
    """Train, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", nargs="+", choices=ROUNDS, default=list(ROUNDS))
    parser.add_argument("--epsilon", type=float, default=2 / 255, help="Linf radius in [0,1]")
    parser.add_argument("--batch", type=int, default=100, help="images")
    parser.add_argument("--training-steps", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a look")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tuned = machine.tune_allocator()
    data = read()
    attacked, error = setting(data, steps=arguments.training_steps, batch=arguments.batch)
    attacks: dict[str, GradientAttack] = {"FGSM": FGSM(epsilon=arguments.epsilon)}
    for steps in (20, 100):
        attacks[f"PGD-{steps}"] = PGD(norm="linf", epsilon=arguments.epsilon, steps=steps, random_start=False)
    for run in contenders(attacked, parts=True).values():
        run(attacks["PGD-20"])  # the same operations on the same shapes as in all that is measured
    rows = []
    for name in arguments.attacks:
        runs = contenders(attacked, parts=name != "PGD-100")
        rounds = ROUNDS[name][arguments.quick]
        rows += measure(name, attacks[name], runs, rounds, len(attacked.y))
        print(f"{name}: {rows[-2]['ratio']:.2f}, {rows[-1]['ratio']:.2f}", file=sys.stderr, flush=True)
    described = {
        "command": shlex.join(["python", *sys.argv]),
        "commit": machine.commit(),
        "machine": machine.describe(),
        "allocator_tuned": tuned,
        "peers": {peer: metadata.version(peer) for peer in PEERS},
        "task": {
            "data": data.name,
            "training_steps": arguments.training_steps,
            "test_error": error,
            "images": len(attacked.y),
            "epsilon": arguments.epsilon,
        },
    }
    made = table(rows, described)
    print(made.markdown())
    for path, text in (
        (arguments.json, json.dumps({**described, "rows": rows}, indent=2) + "\n"),
        (arguments.markdown, made.markdown()),
    ):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
