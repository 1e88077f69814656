"""Temperature scaling: closed forms, an independent minimiser, and what it never does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.evaluation import figures, temperature
from vicinal.evaluation.calibration import CalibrationStudy, calibration_figures
from vicinal.evaluation.temperature import BOUNDS, Temperature, Tempered, fit_temperature, temperature_scaling


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sampled(seed: int, factor: float, n: int = 400, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Logits that are ``factor`` times those that the labels were drawn from."""
    logits = 1.5 * torch.randn(n, classes, generator=seeded(seed), dtype=torch.float64)
    y = torch.multinomial(logits.softmax(dim=1), 1, generator=seeded(seed + 1)).squeeze(1)
    return factor * logits, y


def nll(logits: Tensor, y: Tensor, temperature: float) -> float:
    return float(F.cross_entropy(logits.double() / temperature, y))


@pytest.mark.parametrize("margin", [0.3, 3.0, 8.0])
@pytest.mark.parametrize(("right", "of"), [(3, 4), (9, 10), (99, 100)])
def test_two_classes_have_a_closed_form(margin: float, right: int, of: int) -> None:
    """With one margin, confidence is accuracy at T = margin / log odds of the accuracy."""
    y = (torch.arange(of) >= right).long()
    found = fit_temperature(torch.tensor([[margin, 0.0]] * of), y, bounds=(1e-3, 1e3))
    assert found.value == pytest.approx(margin / math.log(right / (of - right)), rel=1e-6)
    entropy = -(right / of) * math.log(right / of) - (1 - right / of) * math.log(1 - right / of)
    assert found.nll_after == pytest.approx(entropy, abs=1e-9)
    assert found.n == of


@pytest.mark.parametrize("factor", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_minimum_and_undoes_a_factor(factor: float, seed: int) -> None:
    from scipy.optimize import minimize_scalar

    logits, y = sampled(seed, factor)
    found = fit_temperature(logits, y)
    best = minimize_scalar(lambda s: nll(logits, y, math.exp(s)), bounds=(-2.3, 2.3), method="bounded")
    assert found.nll_after <= best.fun + 1e-9
    assert math.log(found.value) == pytest.approx(best.x, abs=1e-3)
    assert found.value == pytest.approx(factor, rel=0.25)
    assert (found.nll_before, found.nll_after) == (nll(logits, y, 1), nll(logits, y, found.value))
    scaled = fit_temperature(7 * logits, y, bounds=(0.01, 100))
    assert scaled.value == pytest.approx(7 * found.value, rel=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e3, 1e30])
def test_it_never_raises_the_nll_nor_changes_a_prediction(size: float) -> None:
    for seed in range(20):
        logits = (size * torch.randn(12, 4, generator=seeded(seed))).float()
        logits[:, 1] = torch.nextafter(logits[:, 0], torch.tensor(math.inf))  # neighbours in float32
        y = torch.randint(4, (12,), generator=seeded(seed + 100))
        found = fit_temperature(logits, y)
        assert found.nll_after <= found.nll_before
        assert BOUNDS[0] <= found.value <= BOUNDS[1]
        scaled = Tempered(nn.Identity(), found.value)(logits)
        assert torch.equal(scaled.argmax(dim=1), logits.argmax(dim=1))


def any_case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits and classes to choose a temperature on, and others to measure; every kind of network that there may be.

    Of sizes from 1e-3 to 1e3, in float32 or float64, with few or many classes, few or many examples, right always,
    never, or mostly; two logits of each of the others are neighbours in float32.
    """
    draws = seeded(1000 + seed)
    n, classes = (int(torch.randint(low, high, (), generator=draws)) for low, high in ((1, 60), (2, 12)))
    size = 10 ** (6 * float(torch.rand((), generator=draws)) - 3)
    logits = (size * torch.randn(n, classes, generator=draws)).to((torch.float32, torch.float64)[seed % 2])
    right = torch.rand(n, generator=draws) < (0.0, 0.3, 0.6, 0.9, 1.0)[seed % 5]
    y = torch.where(right, logits.argmax(dim=1), torch.randint(classes, (n,), generator=draws))
    others = (size * torch.randn(40, classes, generator=draws)).float()
    others[:, 1] = torch.nextafter(others[:, 0], torch.tensor(math.inf))
    return logits, y, others, torch.randint(2, (40,), generator=draws)


def check_what_it_never_does(seed: int) -> None:
    logits, y, others, y_others = any_case(seed)
    found = temperature_scaling(nn.Identity(), [(logits, y)], [(others, y_others)])
    chosen = found.temperature

    def reference(temperature: float) -> float:
        scaled = logits.double().numpy() / temperature
        largest = scaled.max(axis=1)
        log_sum = largest + np.log(np.exp(scaled - largest[:, None]).sum(axis=1))
        return float((log_sum - scaled[np.arange(len(y)), y.numpy()]).mean())

    assert chosen.nll_after <= chosen.nll_before
    assert reference(chosen.value) <= reference(1.0) + 1e-12 * max(1.0, reference(1.0))
    assert (chosen.nll_before, chosen.nll_after) == pytest.approx((reference(1.0), reference(chosen.value)), rel=1e-9)
    assert found.before.error == found.after.error == float((others.argmax(dim=1) != y_others).double().mean())
    on_itself = temperature_scaling(nn.Identity(), [(logits, y)], [(logits, y)])
    assert on_itself.before.error == on_itself.after.error
    assert on_itself.after.nll <= on_itself.before.nll
    scaled = Tempered(nn.Identity(), chosen.value)(others)
    assert torch.equal(scaled.argmax(dim=1), others.argmax(dim=1))


@pytest.mark.parametrize("seeds", [range(first, first + 50) for first in range(0, 300, 50)], ids=str)
def test_on_no_case_it_raises_the_nll_or_changes_the_error(seeds: range) -> None:
    for seed in seeds:
        check_what_it_never_does(seed)


def quotients_in_float32(patch: pytest.MonkeyPatch) -> None:
    update = CalibrationStudy.update
    patch.setattr(CalibrationStudy, "update", lambda self, logits, y: update(self, logits.float(), y))


def wrong_way(patch: pytest.MonkeyPatch) -> None:
    fit = temperature.fit_temperature

    def other(logits: Tensor, y: Tensor, **settings: Any) -> Temperature:
        found = fit(logits, y, **settings)
        value = 1 / found.value
        return Temperature(value, found.n, found.nll_before, nll(logits, y, value))

    patch.setattr(temperature, "fit_temperature", other)


def whatever_it_did(patch: pytest.MonkeyPatch) -> None:
    """As if the search were right wherever it ends."""
    patch.setattr(temperature, "_search", lambda logits, y: 0.5)
    patch.setattr(temperature, "_nll", lambda logits, y, t, made=temperature._nll: made(logits, y, t) * (1 - (t != 1)))


@pytest.mark.parametrize("mutate", [quotients_in_float32, wrong_way, whatever_it_did])
def test_what_does_is_told_apart(mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)

    def any_seed() -> None:
        for seed in range(50):
            check_what_it_never_does(seed)

    with pytest.raises(AssertionError):
        any_seed()


def test_in_float32_a_prediction_could_change() -> None:
    a = 1 + torch.rand(200, generator=seeded())
    logits = torch.stack([a, torch.nextafter(a, torch.tensor(math.inf))], dim=1)
    assert bool(((logits / 1.5).argmax(dim=1) == 0).any())
    assert bool((Tempered(nn.Identity(), 1.5)(logits).argmax(dim=1) == 1).all())


@pytest.mark.parametrize("result", [1e-4, -3.0, 1e4, math.nan])
def test_a_search_that_fails_keeps_the_logits(result: float, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost:
        def __init__(self, parameters: list[Tensor], **_settings: Any) -> None:
            self.parameters = parameters

        def step(self, _closure: Any) -> None:
            self.parameters[0].data.fill_(result)

    logits, y = sampled(0, 1.0)
    assert fit_temperature(logits, y).value != 1
    monkeypatch.setattr(torch.optim, "LBFGS", Lost)
    found = fit_temperature(logits, y)
    assert found == Temperature(1.0, len(y), nll(logits, y, 1), nll(logits, y, 1))


def test_where_the_likelihood_has_no_maximum_the_bounds_stand() -> None:
    logits, _ = sampled(0, 1.0)
    assert fit_temperature(logits, logits.argmax(dim=1)).value == 0.1
    assert fit_temperature(logits, logits.argmin(dim=1)).value == 10
    assert fit_temperature(logits, logits.argmax(dim=1), bounds=(0.5, 2)).value == 0.5
    assert fit_temperature(torch.ones(4, 3), torch.tensor([0, 1, 2, 0])).value == 1


def test_before_and_after(trained: nn.Module, digits: Any, untouched: Any) -> None:
    """What is reported is what the scaled network measures; the error stays."""
    noisy = [((x + 0.6 * torch.randn(x.shape, generator=seeded())).clamp(0, 1), y) for x, y in digits]
    validation, test = noisy[:1], noisy[1:]
    network = Tempered(trained, 0.4)  # more confident than it was, and it now errs
    with untouched(network):
        found = temperature_scaling(network, validation, iter(test))
    chosen = found.temperature
    assert chosen.n == len(validation[0][1])
    assert chosen.value > 1
    assert chosen.nll_before == pytest.approx(figures(network, validation).nll)
    assert chosen.nll_after == pytest.approx(figures(Tempered(network, chosen.value), validation).nll)
    assert chosen.nll_after < chosen.nll_before
    assert found.before == calibration_figures(network, test)
    assert found.after == calibration_figures(Tempered(network, chosen.value), test)
    assert found.after.error == found.before.error
    assert found.after.nll < found.before.nll


@pytest.mark.parametrize(
    ("logits", "y", "settings", "message"),
    [
        (torch.zeros(0, 3), [], {}, "no examples to choose it on"),
        (torch.zeros(2, 3), [0], {}, "expected logits"),
        (torch.zeros(2), [0, 1], {}, "expected logits"),
        (torch.tensor([[0.0, math.inf]]), [0], {}, "not finite"),
        (torch.zeros(1, 2), [0], {"bounds": (0.0, 2.0)}, "0 < low"),
        (torch.zeros(1, 2), [0], {"bounds": (2.0, 3.0)}, "0 < low"),
    ],
)
def test_what_is_refused(logits: Tensor, y: list[int], settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_temperature(logits, torch.tensor(y, dtype=torch.long), **settings)


def test_empty_sets_and_wrong_temperatures_are_refused(trained: nn.Module, digits: Any) -> None:
    with pytest.raises(InputError, match="no examples to choose it on"):
        temperature_scaling(trained, [], digits)
    with pytest.raises(InputError, match="nothing was measured"):
        temperature_scaling(trained, digits, [])
    with pytest.raises(InputError, match="temperature must be greater than 0"):
        Tempered(trained, 0.0)


@pytest.mark.parametrize("margin", [0.3, 3.0, 30.0])
def test_where_all_are_right_the_lower_bound_is_the_result(margin: float) -> None:
    """However large the logits are: a search alone would stop where the likelihood is flat."""
    y = torch.arange(4)
    right = fit_temperature(margin * torch.eye(4), y)
    assert right.value == (BOUNDS[0] if right.nll_before > 0 else 1.0)
    wrong = margin * torch.eye(4)
    wrong[0] = wrong[1]
    assert fit_temperature(wrong, y).value > BOUNDS[0]
