"""Figures of every study as a report gets them, made up by plain formulas: no network, no data, no chance."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from vicinal.reporting.report.measures import GAMMA

LINF = (0.0, 0.02, 0.05, 0.1, 0.2)
KINDS = ("gaussian_noise", "shot_noise", "defocus_blur", "contrast")
EXTRA = ("spatter",)
LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def png(shade: int, side: int = 16) -> str:
    """A grey picture with a darker corner, in base64."""
    rows = b"".join(
        b"\0" + bytes(shade // 2 if x < side // 2 and y < side // 2 else shade for x in range(side))
        for y in range(side)
    )

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


def study(
    title: str, figures: Mapping[str, Any] | None, *, left_out: str | None = None, **settings: Any
) -> dict[str, Any]:
    """A study as it is kept of a run."""
    return {
        "title": title,
        "settings": settings,
        "seed": 7,
        "figures": figures,
        "left_out": left_out,
        "commit": "2cd34a56d2ba",
        "seconds": 1.5,
    }


def robustness(
    clean: float, slope: float, *, black: bool = True, many: bool = True, fails: Sequence[str] = (), n: int = 200
) -> dict[str, Any]:
    """Errors that grow with the radius: PGD's faster than FGSM's, another network's slower."""

    def errors(radii: Sequence[float], factor: float) -> list[float]:
        return [round(clean + (1 - clean) * (1 - math.exp(-factor * slope * radius)), 6) for radius in radii]

    found: list[dict[str, Any]] = []
    flags = []
    for norm, scale, single in (("linf", 1.0, "FGSM"), ("l2", 8.0, "FGM")):
        radii = [scale * radius for radius in LINF]
        about = {"norm": norm, "restarts": 1, "space": "pixels", "count": "visited", "epsilons": radii}
        kinds = [(single, 1, "white", 0.7)]
        if many:
            kinds += [("PGD-20", 20, "white", 1.0), *([("PGD-20", 20, "black", 0.3)] if black else [])]
        for attack, steps, box, factor in kinds:
            curve = {"attack": attack, "steps": steps, "box": box, "errors": errors(radii, factor / scale)}
            found.append({**about, **curve})
        names = ("more steps", "larger radius", "many steps or one", "everything falls", "gradients")
        checks = [
            {"name": name, "claim": "first <= second", "first": 0.5, "second": 0.6, "holds": name not in fails}
            for name in names
        ]
        verdict = f"gradient masking suspected: {', '.join(fails)}" if fails else "no sign of gradient masking"
        about = {"norm": norm, "epsilon": radii[2], "n": 100, "verdict": verdict, "holds": not fails}
        flags.append({**about, "flags": checks})
    source = {
        "source": "runs/supervised-9" if black else None,
        "why_not": None if black else "no other network was given",
    }
    return study(
        "Robustness", {"n": n, "clean_error": clean, "curves": found, **source, "sanity": flags}, n=n, steps=20
    )


def fgm(clean: float, slope: float, *, black: bool = True) -> dict[str, Any]:
    """One step in the preprocessed input."""
    radii = (0.14, 0.29, 0.43, 0.72, 1.2)
    white = [round(1 - (1 - clean) * math.exp(-slope * radius / 4), 6) for radius in radii]
    figures = {
        "n": 597,
        "space": "input",
        "preprocess": "normalise",
        "epsilons": list(radii),
        "published": False,
        "white": white,
        "black": [round(clean + (value - clean) / 3, 6) for value in white] if black else None,
        "source": "runs/supervised-9" if black else None,
        "why_not": None,
        "clean_error": clean,
    }
    return study("One step in the preprocessed input", figures, n=None)


def paths(clean: float) -> dict[str, Any]:
    """Errors that are largest in the middle of a path."""
    errors = {
        kind: [round(clean + height * (1 - abs(2 * share - 1)), 6) for share in LAMBDAS]
        for kind, height in (("real-real", 0.2), ("real-adversarial", 0.4))
    }
    attack = "FGM, radius 0.14 of the input"
    figures = {
        "n": 597,
        "space": "input",
        "attack": attack,
        "epsilon": 0.14,
        "lambdas": list(LAMBDAS),
        "errors": errors,
    }
    return study("Interpolation paths", figures)


def corruptions(clean: float) -> dict[str, Any]:
    """Errors that grow with the severity."""
    errors = {
        kind: [round(min(1.0, clean + 0.03 * (i + 1) * severity), 6) for severity in range(1, 6)]
        for i, kind in enumerate((*KINDS, *EXTRA))
    }
    means = {kind: math.fsum(values) / 5 for kind, values in errors.items()}
    figures = {
        "n": 200,
        "origin": "made with seed 0",
        "kinds": list(KINDS),
        "extra": list(EXTRA),
        "severities": [1, 2, 3, 4, 5],
        "errors": errors,
        "mean": math.fsum(means[kind] for kind in KINDS) / len(KINDS),
        "mean_extra": means[EXTRA[0]],
        "clean_error": clean,
        "notes": [],
    }
    return study("Corruptions", figures, n=200)


def calibration(before: float, after: float | None, temperature: float = 1.8) -> dict[str, Any]:
    """Bins whose accuracies lie below their confidences by about the calibration error; empty below one half."""

    def of(ece: float) -> dict[str, Any]:
        bins = [
            {
                "low": i / 10,
                "high": (i + 1) / 10,
                "count": 0 if i < 5 else 10 * i,
                "confidence": None if i < 5 else i / 10 + 0.05,
                "accuracy": None if i < 5 else max(0.0, i / 10 + 0.05 - ece),
            }
            for i in range(10)
        ]
        values = {"error": 0.1, "nll": 0.3, "ece": ece, "adaptive_ece": ece, "classwise_ece": ece / 5}
        more = {"overconfidence": ece / 2, "brier": 0.15, "confidence_gap": ece}
        return {"n": 350, "bins": 10, **values, **more, "reliability": bins}

    why = None if after is not None else "there is no validation part to choose a temperature on"
    found = {"value": temperature, "n": 120, "nll_before": 0.3, "nll_after": 0.25}
    figures = {
        "n": 350,
        "bins": 10,
        "before": of(before),
        "after": None if after is None else of(after),
        "temperature": None if after is None else found,
        "why_not": why,
        "validation_n": None if after is None else 120,
    }
    return study("Calibration", figures, bins=10)


def smoothness(gamma: float) -> dict[str, Any]:
    """Two figures, one without a largest value, and one that could not be had."""

    def row(name: str, symbol: str, value: float | None, **more: Any) -> dict[str, Any]:
        over = "100 test examples, Linf balls of radius 0.031"
        about = {"kind": "lower estimate", "largest": None, "over": over, "n": 100, "why_not": None, "epsilon": None}
        return {"name": name, "symbol": symbol, "value": value, **about, **more}

    rows = [
        row("local linearity error", GAMMA, gamma, kind="mean of a search (lower)", epsilon=0.031),
        row("Jacobian norm", "‖J‖₂", 40 * gamma, largest=90 * gamma, over="100 test examples"),
        row("Lipschitz bound", "Lip(f)", 5000 * gamma, kind="upper bound", over="all inputs"),
        row("Hessian norm", "‖∇²f_y‖₂", None, why_not="zero beside the kinks of a piecewise linear network"),
    ]
    return study("Smoothness", {"rows": rows, "flags": []})


def mistakes(wrong: int = 3, *, pictures: bool = True) -> dict[str, Any]:
    """The surest wrong predictions."""
    items = [
        {
            "index": 10 * i,
            "name": None,
            "label": "8",
            "predicted": "3",
            "confidence": 0.99 - 0.02 * i,
            "of_label": 0.005,
        }
        for i in range(wrong)
    ]
    figures: dict[str, Any] = {"n": 597, "wrong": wrong, "items": items}
    if pictures:
        figures["pictures"] = {str(item["index"]): png(250 - 20 * i) for i, item in enumerate(items)}
    return study("Most confident mistakes", figures)


def regions() -> dict[str, Any]:
    """A picture of the plane."""
    return study(
        "Decision regions", {"classes": ["0", "1"], "limits": [0, 1, 0, 1], "pictures": {"regions": png(200, 64)}}
    )
