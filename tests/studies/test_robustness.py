"""Robustness curves: their numbers are those of attacks, and each flag is raised by what it is there for."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from vicinal.data import Examples
from vicinal.errors import InputError
from vicinal.evaluation.attacks import APGD, FGM, FGSM, PGD, robustness, sanity
from vicinal.settings import parse_settings
from vicinal.studies import Subject
from vicinal.studies.robustness import L2, LINF, Robustness

MODULE = sys.modules[Robustness.__module__]
RADII = {"linf": (0.0, 0.02, 0.05, 0.1), "l2": (0.0, 0.1, 0.3, 0.6)}
# Two of 40 may break an order.
QUICK = Robustness(n=40, steps=10, sanity_n=30, slack=0.05, linf=RADII["linf"], l2=RADII["l2"])
NAMES = ["more steps", "larger radius", "many steps or one", "everything falls", "gradients"]


class Rounded(nn.Module):
    """Logits rounded to whole numbers, through which no gradient goes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x).round()


def other(network: nn.Module) -> nn.Module:
    """A network of the same kind with somewhat other weights."""
    changed = copy.deepcopy(network)
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter += 0.3 * parameter.std() * torch.randn(parameter.shape, generator=draws)
    return changed


def curve(found: dict[str, Any], attack: str, norm: str, box: str = "white") -> dict[str, Any]:
    (one,) = [c for c in found["curves"] if (c["attack"], c["norm"], c["box"]) == (attack, norm, box)]
    return one


def raised(found: dict[str, Any], norm: str) -> list[str]:
    """The flags of a norm that do not hold."""
    (one,) = [entry for entry in found["sanity"] if entry["norm"] == norm]
    names = [flag["name"] for flag in one["flags"] if not flag["holds"]]
    assert one["holds"] is (not names)
    assert one["verdict"] == (
        f"gradient masking suspected: {', '.join(names)}" if names else "no sign of gradient masking"
    )
    return names


@pytest.fixture(scope="module")
def found(images: Subject) -> dict[str, Any]:
    return QUICK(dataclasses.replace(images, source=other(images.network), source_name="another run"), 7)


@pytest.mark.parametrize(
    ("name", "box", "attack"),
    [
        ("FGSM", "white", FGSM(epsilon=0)),
        ("PGD-10", "white", PGD(norm="linf", epsilon=0, steps=10)),
        ("PGD-10", "black", PGD(norm="linf", epsilon=0, steps=10)),
        ("FGM", "white", FGM(epsilon=0)),
        ("PGD-10", "white", PGD(norm="l2", epsilon=0, steps=10)),
        ("PGD-10", "black", PGD(norm="l2", epsilon=0, steps=10)),
    ],
)
def test_curves_are_those_of_the_attacks(name: str, box: str, attack: Any, images: Subject, found: Any) -> None:
    source = other(images.network) if box == "black" else None
    table = robustness(images.network, images.batches(40), attack, epsilons=RADII[attack.norm], seed=7, source=source)
    assert curve(found, name, attack.norm, box) == {
        "attack": name,
        "norm": attack.norm,
        "steps": attack.steps,
        "restarts": 1,
        "box": box,
        "space": "pixels",
        "count": table.count,
        "epsilons": list(RADII[attack.norm]),
        "errors": list(table.errors.values()),
    }
    assert table.errors[0.0] == table.clean_error == found["clean_error"]
    assert len(set(table.errors.values())) > 1
    assert (found["n"], found["source"], found["why_not"], len(found["curves"])) == (40, "another run", None, 6)


def test_a_black_box_by_the_target_itself_is_a_white_box(images: Subject, found: Any) -> None:
    own = QUICK(dataclasses.replace(images, source=images.network), 0)
    for norm in RADII:
        assert curve(own, "PGD-10", norm, "black")["errors"] == curve(own, "PGD-10", norm)["errors"]
        assert curve(found, "PGD-10", norm, "black")["errors"] != curve(found, "PGD-10", norm)["errors"]
    assert own["source"] == "another network"


def test_auto_pgd_and_restarts_where_they_are_asked_for(images: Subject) -> None:
    both = dataclasses.replace(QUICK, apgd=True, restarts=2)(images, 0)
    assert [c["attack"] for c in both["curves"]] == ["FGSM", "PGD-10", "APGD-10", "FGM", "PGD-10", "APGD-10"]
    assert [c["restarts"] for c in both["curves"]] == [1, 2, 2, 1, 2, 2]
    attack = APGD(norm="l2", epsilon=0, steps=10, restarts=2)
    table = robustness(images.network, images.batches(40), attack, epsilons=RADII["l2"], seed=0)
    assert curve(both, "APGD-10", "l2")["errors"] == list(table.errors.values())


def test_what_it_gives_is_plain_and_repeats(images: Subject, found: Any) -> None:
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert QUICK(images, 7) == QUICK(images, 7)


def test_images_run_from_the_clean_error_towards_1(images: Subject) -> None:
    whole = Robustness(n=40, steps=10, sanity_n=10)(images, 0)
    for norm, radii in (("linf", LINF), ("l2", L2)):
        errors = curve(whole, "PGD-10", norm)["errors"]
        assert curve(whole, "PGD-10", norm)["epsilons"] == list(radii)
        assert errors[0] == whole["clean_error"] < 0.3
        assert errors[-1] > 0.95
        assert sum(0.1 < error < 0.9 for error in errors) >= 2
    claims = [{flag["name"]: flag["claim"] for flag in entry["flags"]} for entry in whole["sanity"]]
    assert re.fullmatch(r"error at \d+/255 <= at \d+/255", claims[0]["larger radius"])
    assert re.fullmatch(r"error at [\d.]+ <= at [\d.]+", claims[1]["larger radius"])
    falls = [claim["everything falls"] for claim in claims]
    assert falls == [f"accuracy at radius {radius} is at most 1 %" for radius in (1, 6)]


def test_radii_of_vectors_follow_their_spread(vectors: Subject) -> None:
    wider = dataclasses.replace(
        vectors,
        dataset=dataclasses.replace(
            vectors.dataset,
            test=Examples(10 * vectors.dataset.test.x[:], vectors.dataset.test.y),  # type: ignore[union-attr]
        ),
    )
    for norm, factor in (("linf", 1), ("l2", 2)):  # the root of 4 features
        radii = Robustness().radii(vectors, norm)  # type: ignore[arg-type]
        assert radii[0] == 0
        assert all(f"{radius:.2g}" == f"{radius:g}" for radius in radii)
        torch.testing.assert_close(
            torch.tensor(radii),
            torch.tensor(MODULE.MULTIPLES) * vectors.scale * factor,
            rtol=0.05,
            atol=0,
        )
        torch.testing.assert_close(
            torch.tensor(Robustness().radii(wider, norm)),  # type: ignore[arg-type]
            10 * torch.tensor(radii),
        )


def test_radii_do_not_hang_on_the_last_digits_of_the_data(vectors: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    radii, scale = Robustness().radii(vectors, "l2"), vectors.scale
    monkeypatch.setattr(Subject, "scale", property(lambda subject: scale * (1 + 1e-6)))
    assert Robustness().radii(vectors, "l2") == radii
    monkeypatch.setattr(MODULE, "rounded", float)  # negative control
    assert Robustness().radii(vectors, "l2") != radii


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_ordinary_networks_raise_no_flag(norm: str, images: Subject, vectors: Subject, found: Any) -> None:
    assert raised(found, norm) == []
    assert [flag["name"] for flag in found["sanity"][0]["flags"]] == [*NAMES, "transfer"]
    of = {flag["name"]: flag["n"] for flag in found["sanity"][0]["flags"]}
    assert of == dict.fromkeys(NAMES, 30) | dict.fromkeys(("larger radius", "many steps or one", "transfer"), 40)
    without = dataclasses.replace(QUICK, linf=None, l2=None)(vectors, 0)
    assert raised(without, norm) == []
    assert [flag["name"] for flag in without["sanity"][0]["flags"]] == NAMES


def test_flags_are_at_the_radius_that_tells_most_or_the_one_asked_for(images: Subject, found: Any) -> None:
    for entry in found["sanity"]:
        errors = curve(found, "PGD-10", entry["norm"])
        middle = (1 + found["clean_error"]) / 2
        best = min(abs(error - middle) for error in errors["errors"][1:])
        assert abs(errors["errors"][errors["epsilons"].index(entry["epsilon"])] - middle) == best
        assert entry["n"] == 30
    asked = dataclasses.replace(QUICK, sanity_linf=0.03, sanity_l2=0.25)(images, 0)
    assert [entry["epsilon"] for entry in asked["sanity"]] == [0.03, 0.25]
    flags = sanity(images.network, images.batches(30), norm="l2", epsilon=0.25, seed=0, steps=(10, 50), slack=0.05)
    for kept, flag in zip(asked["sanity"][1]["flags"], flags.flags, strict=True):
        assert kept["name"] == flag.name
        if flag.name in ("larger radius", "many steps or one"):  # read off the curves, nearest to the radius
            assert " at 0.3" in kept["claim"]
            assert kept["second"] in curve(asked, "PGD-10", "l2")["errors"]
        else:
            assert kept == dataclasses.asdict(flag)


def test_one_start_is_not_enough_in_few_dimensions(plane: Subject) -> None:
    """There the single step often finds what one random start does not; that says nothing about the network."""
    quick = dataclasses.replace(QUICK, n=None, linf=None, l2=None, slack=0.0)
    one, several = dataclasses.replace(quick, restarts=1), dataclasses.replace(quick, restarts=3)
    assert quick(plane, 0) == several(plane, 0)
    assert "many steps or one" in {name for seed in range(3) for name in raised(one(plane, seed), "l2")}
    assert "many steps or one" not in raised(quick(plane, 0), "l2")


def test_masked_gradients_are_found_out(images: Subject) -> None:
    masked = dataclasses.replace(images, network=Rounded(images.network), source=images.network)
    hidden = QUICK(masked, 0)
    for norm in RADII:
        assert {"everything falls", "gradients", "transfer"} <= set(raised(hidden, norm))
    assert raised(QUICK(dataclasses.replace(images, source=images.network), 0), "linf") == []


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_curves_alone_raise_flags(norm: str, images: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGD that stands still at the largest radius finds less there than at the one before, than one step, and than
    another network's gradients, while what `sanity` looks at holds."""
    largest = RADII[norm][-1]
    subject = dataclasses.replace(images, source=other(images.network))
    assert raised(QUICK(subject, 0), norm) == []

    @dataclass(frozen=True, kw_only=True)
    class Lame(PGD):
        def advance(self, rows: Any, step: int, bounds: Any) -> None:
            super().advance(rows, step, bounds)
            if self.epsilon == largest:
                rows["point"] = rows["x"]

    def lame_in_the_white_box(*given: Any, **settings: Any) -> Any:
        network, batches, attack = given
        if isinstance(attack, PGD) and attack.norm == norm and settings["source"] is None:
            attack = Lame(norm=attack.norm, epsilon=0, steps=attack.steps, random_start=False)
        return robustness(network, batches, attack, **settings)

    monkeypatch.setattr(MODULE, "robustness", lame_in_the_white_box)
    quick = dataclasses.replace(QUICK, sanity_linf=0.05, sanity_l2=0.3)
    found = quick(subject, 0)
    assert raised(found, norm) == ["larger radius", "many steps or one", "transfer"]
    assert raised(found, "l2" if norm == "linf" else "linf") == []
    (entry,) = [entry for entry in found["sanity"] if entry["norm"] == norm]
    flags = [flag for flag in entry["flags"] if not flag["holds"]]
    for flag in flags:
        assert f"at {largest:g}" in flag["claim"]
        assert flag["n"] == 40
        assert flag["second"] == found["clean_error"] < flag["first"]
    slack = max(flag["first"] - flag["second"] for flag in flags)
    assert raised(dataclasses.replace(quick, slack=slack)(subject, 0), norm) == []


def test_without_bounds_everything_falls_within_the_span_of_the_data(
    plane: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = dataclasses.replace(QUICK, linf=None, l2=None)(plane, 0)
    x = plane.batches(30)[0][0]
    ranges = x.amax(dim=0) - x.amin(dim=0)
    for entry, reach in zip(found["sanity"], (ranges.max(), ranges.norm()), strict=True):
        (flag,) = [flag for flag in entry["flags"] if flag["name"] == "everything falls"]
        assert flag["claim"] == f"accuracy at radius {float(reach):.4g} is at most 1 %"
        assert (flag["first"], flag["holds"]) == (0.0, True)
    monkeypatch.setattr(MODULE, "_reach", lambda batches, norm: 0.0)  # then at twice the middle radius
    near = dataclasses.replace(QUICK, linf=(0, 0.01), l2=(0, 0.01))(plane, 0)
    assert all("everything falls" in raised(near, norm) for norm in RADII)


def test_settings_are_read_as_they_are_typed() -> None:
    values = parse_settings("robustness", Robustness, {"n": "none", "linf": "[0, 0.1]", "apgd": "true"})
    assert Robustness(**values) == Robustness(n=None, linf=(0, 0.1), apgd=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"sanity_n": 0}, "sanity_n must be at least 1"),
        ({"sanity_l2": 0.0}, "sanity_l2 must be greater than 0"),
        ({"slack": -0.1}, "slack must be at least 0"),
        ({"linf": ()}, "linf: expected radii that grow"),
        ({"linf": (0.0,)}, "linf: expected radii that grow"),
        ({"l2": (0.0, 1.0, 1.0)}, "l2: expected radii that grow"),
        ({"l2": (-1.0, 1.0)}, "l2: expected radii that grow"),
        ({"l2": (0.0, float("inf"))}, "l2: expected radii that grow"),
        ({"l2": (float("nan"), 1.0)}, "l2: expected radii that grow"),
    ],
)
def test_settings_out_of_range_are_one_clear_line(settings: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        Robustness(**settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
