"""Named choices: how they are read, what may be set, and what is said about bad input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from vicinal.errors import InputError
from vicinal.methods import METHODS, Method
from vicinal.settings import Choice, Setting, build, check, parse_settings, settings_of


@dataclass(frozen=True, kw_only=True)
class Base:
    """Base.

    Args:
        size: how large, in cells.
    """

    size: int = 3


@dataclass(frozen=True, kw_only=True)
class Tool(Base):
    """A thing with settings.

    Args:
        rate: how fast,
            in cells per second.
        kind: which.
        limit: none or a limit.
    """

    needed: str = "x"
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"
    limit: float | None = None
    sizes: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        check("rate", self.rate, low=0)


def tool(shape: tuple[int, ...], *, depth: int = 2, wide: bool = False) -> tuple[tuple[int, ...], int, bool]:
    """A function with settings.

    Args:
        shape: not a setting.
        depth: layers.
        wide: twice the width.
    """
    return shape, depth, wide


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ict", Choice("ict")),
        ({"name": "ict"}, Choice("ict")),
        ({"name": "ict", "weight": 20}, Choice("ict", {"weight": 20})),
        (Choice("vat", {"xi": 0.1}), Choice("vat", {"xi": 0.1})),
    ],
)
def test_choice_is_read_and_written(value: object, expected: Choice) -> None:
    assert Choice.of("method", value) == expected
    assert Choice.of("method", expected.as_dict()) == expected


@pytest.mark.parametrize("value", ["", None, 3, [], ["ict"], {}, {"weight": 2}, {"name": ""}, {"name": 4}])
def test_what_is_no_choice_is_an_error_that_says_where(value: object) -> None:
    with pytest.raises(InputError, match=r"^method: expected a name or a mapping with a 'name'"):
        Choice.of("method", value)


def test_settings_are_read_off_signature_and_docstring() -> None:
    found = {setting.name: setting for setting in settings_of(Tool)}
    assert list(found) == ["size", "needed", "rate", "kind", "limit", "sizes"]
    assert found["size"] == Setting("size", int, 3, "how large, in cells.")
    assert found["rate"] == Setting("rate", float, 0.5, "how fast, in cells per second.")
    assert found["kind"].type == Literal["a", "b"]
    assert found["needed"].help == ""
    assert [setting.name for setting in settings_of(tool)] == ["depth", "wide"]
    assert [setting.name for setting in settings_of(tool, skip=["depth"])] == ["wide"]


def test_defaults_fill_what_is_not_given_and_values_get_their_type() -> None:
    values = parse_settings("tool", Tool, {"rate": 2, "limit": 1, "sizes": [4, 5]})
    assert values == {"size": 3, "needed": "x", "rate": 2.0, "kind": "a", "limit": 1.0, "sizes": (4, 5)}
    assert isinstance(values["rate"], float)
    assert isinstance(values["limit"], float)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"raet": 1}, r"^tool\.raet: unknown setting; did you mean 'rate'\?$"),
        ({"zzzzz": 1}, r"^tool\.zzzzz: unknown setting; known: kind, limit, needed, rate, size, sizes$"),
        ({"rate": "fast"}, r"^tool\.rate: expected float, got 'fast'$"),
        ({"rate": True}, r"^tool\.rate: expected float, got True$"),
        ({"size": 1.5}, r"^tool\.size: expected int, got 1\.5$"),
        ({"size": None}, r"^tool\.size: expected int, got None$"),
        ({"kind": "c"}, r"^tool\.kind: expected one of 'a', 'b', got 'c'$"),
        ({"rate": -1}, r"^tool: rate must be at least 0, got -1\.0$"),
    ],
)
def test_bad_settings_are_one_clear_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build("tool", Tool, given)
    assert "\n" not in str(caught.value)


def test_build_calls_with_fixed_arguments_and_settings() -> None:
    assert build("network", tool, {"wide": True}, shape=(2, 3)) == ((2, 3), 2, True)
    with pytest.raises(InputError, match=r"^network\.shape: unknown setting"):
        build("network", tool, {"shape": (1,)}, shape=(2, 3))


@pytest.mark.parametrize(
    ("value", "bounds", "good"),
    [
        (0, {"low": 0}, True),
        (-1e-9, {"low": 0}, False),
        (1, {"high": 1}, True),
        (1.1, {"high": 1}, False),
        (0, {"above": 0}, False),
        (1e-9, {"above": 0}, True),
        (math.nan, {"low": 0}, False),
        (math.nan, {"high": 1}, False),
        (math.nan, {"above": 0}, False),
        (0.5, {"low": 0, "high": 1}, True),
    ],
)
def test_bounds(value: float, bounds: dict[str, float], good: bool) -> None:
    if good:
        check("rate", value, **bounds)
    else:
        with pytest.raises(InputError, match=r"^rate must be "):
            check("rate", value, **bounds)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_documents_its_settings_and_gives_them_back(name: str) -> None:
    kind: type[Method] = METHODS[name]
    settings = settings_of(kind)
    assert all(setting.help for setting in settings), [setting.name for setting in settings if not setting.help]
    method = build("method", kind, {})
    assert method.settings() == {setting.name: setting.default for setting in settings}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("advmixup", {"epsilon": -1}),
        ("advmixup", {"alpha": 0}),
        ("advmixup", {"iterations": 0}),
        ("advmixup", {"pairing": "adversarial-real"}),
        ("advmixup", {"xi": 0}),
        ("ict", {"weight": -1}),
        ("ict", {"ramp_length": 1.5}),
        ("ict", {"mix_space": "features"}),
        ("mean_teacher", {"weight": math.nan}),
        ("mixup", {"alpha": -0.5}),
        ("vat", {"epsilon": math.nan}),
        ("vat", {"masks": "none"}),
        ("vat_entmin", {"entropy_weight": -1}),
        ("supervised", {"weight": 1}),
    ],
)
def test_methods_refuse_settings_out_of_range(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^method"):
        build("method", METHODS[name], given)


def test_gauss_newton_needs_shared_masks() -> None:
    """It is the Hessian of a divergence that vanishes at r = 0: with fresh masks there is none."""
    with pytest.raises(InputError, match="masks"):
        build("method", METHODS["vat"], {"search": "gauss_newton", "masks": "fresh"})
