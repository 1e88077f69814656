"""What goes wrong in published code for adversarial Lipschitz regularisation: each trap is an option, or is shut."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.lipschitz import BATCH, CLASSES, FEATURES, normal, seeded
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence
from torch.utils.flop_counter import FlopCounterMode

from vicinal.errors import InputError
from vicinal.vicinity import lipschitz
from vicinal.vicinity.lipschitz import LipschitzSettings, adversarial_neighbour, lipschitz_penalty, output_distance

torch.set_num_threads(1)
OUTPUTS = ("kl", "sqrt_2kl", "l2_logits", "l2_probs")


def linear(seed: int = 2) -> Callable[[Tensor], Tensor]:
    W = normal(CLASSES, FEATURES, seed=seed)
    return lambda v: v @ W.T.to(v.dtype)


def convolutions() -> nn.Sequential:
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 4, stride=2, padding=1), nn.ReLU())
    network = nn.Sequential(*body, nn.Flatten(), nn.Linear(16 * 16 * 16, 10))
    for index, parameter in enumerate(network.parameters()):
        parameter.data = normal(*parameter.shape, seed=index).float() * (2 / parameter[0].numel()) ** 0.5
    return network


def standardised_pixels() -> Tensor:
    """Uniform pixels with CIFAR-10's mean and standard deviation taken off: they span about [-1.99, 2.13]."""
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616])
    return (torch.rand(8, 3, 32, 32, generator=seeded()) - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def test_clamping_standardised_inputs_freezes_what_lies_outside() -> None:
    x, network = standardised_pixels(), convolutions()
    far = x.abs() > 1.2
    frozen = {
        clip: adversarial_neighbour(network, x, LipschitzSettings(clip=clip), seeded()).r == 0
        for clip in (None, (-1.0, 1.0))
    }
    assert (x.abs() > 1).float().mean().item() == pytest.approx(0.50, abs=0.005)
    # 99.8 % was measured with the official code on another random network.
    assert frozen[-1.0, 1.0][far].float().mean() > 0.99
    assert frozen[-1.0, 1.0][x.abs() < 1].float().mean() < 0.1
    assert not frozen[None].any()


@pytest.mark.parametrize("clip", [None, (-1.0, 1.0)])
def test_probes_start_at_the_inputs_unless_clipped(clip: tuple[float, float] | None) -> None:
    probes, x, f = [], 2 * normal(BATCH, FEATURES), linear()
    settings = LipschitzSettings(clip=clip, xi=0.5, iterations=3)
    adversarial_neighbour(lambda v: probes.append(v.detach()) or f(v), x, settings, seeded(), clean_logits=f(x))
    lengths = torch.stack([(probe - x).norm(dim=1) for probe in probes])
    assert len(probes) == 3
    assert torch.allclose(lengths, torch.full_like(lengths, 0.5)) == (clip is None)


def test_clipped_results_stay_in_range_and_are_measured_by_what_is_left() -> None:
    x, f = normal(BATCH, FEATURES).clamp(-1, 1), linear()
    settings = LipschitzSettings(d_y="l2_logits", clip=(-1.0, 1.0), clip_result=True, epsilon_min=3, epsilon_max=3)
    clipped, whole = (
        adversarial_neighbour(f, x, chosen, seeded()) for chosen in (settings, replace(settings, clip_result=False))
    )
    assert (x + clipped.r).abs().max() <= 1 + 1e-12 < (x + whole.r).abs().max()
    quotient = lipschitz_penalty(f(x), f(x + clipped.r), clipped.r, settings).quotient
    torch.testing.assert_close(quotient, f(clipped.r).norm(dim=1) / clipped.r.norm(dim=1))
    assert not torch.allclose(quotient, f(clipped.r).norm(dim=1) / clipped.epsilon)


def test_fallback_of_the_official_code_replaces_good_steps_at_a_fixed_length() -> None:
    """Rounding alone takes lengths out of an interval without width; the samples then get a random step of length 1."""
    x, f = normal(500, FEATURES).float(), linear()
    for low, high, throws in ((3.0, 3.0, True), (0.1, 10.0, False)):
        lengths = {
            fallback: adversarial_neighbour(
                f, x, LipschitzSettings(epsilon_min=low, epsilon_max=high, fallback=fallback), seeded()
            )
            for fallback in ("epsilon", "unit")
        }
        kept, official = (found.r.norm(dim=1) for found in lengths.values())
        torch.testing.assert_close(kept, lengths["epsilon"].epsilon)
        replaced = ~torch.isclose(official, lengths["unit"].epsilon)
        assert replaced.any() == throws
        torch.testing.assert_close(official[replaced], torch.ones(int(replaced.sum())))


def test_without_a_gradient_the_step_keeps_its_length_or_has_length_1_as_in_the_official_code() -> None:
    x = normal(BATCH, FEATURES)
    settings = LipschitzSettings(epsilon_min=2, epsilon_max=3)
    kept, official = (
        adversarial_neighbour(lambda v: 0 * v[:, :2], x, replace(settings, fallback=name), seeded())
        for name in ("epsilon", "unit")
    )
    torch.testing.assert_close(kept.r.norm(dim=1), kept.epsilon)
    torch.testing.assert_close(official.r.norm(dim=1), torch.ones(BATCH, dtype=torch.float64))


def test_kl_of_large_gaps_is_finite_and_pulls_where_probabilities_give_infinity_and_nothing() -> None:
    clean, moved = torch.zeros(1, 2), torch.tensor([[0.0, 120.0]], requires_grad=True)
    naive = kl_divergence(Categorical(probs=clean.softmax(dim=1)), Categorical(probs=moved.softmax(dim=1)))
    assert naive.isinf().all()
    ours = output_distance("kl", clean, moved)
    assert ours.item() == pytest.approx(60 - math.log(2))  # 59.3
    (gradient,) = torch.autograd.grad(ours.sum(), moved)
    torch.testing.assert_close(gradient, torch.tensor([[-0.5, 0.5]]))
    for gap in (1e3, -1e3):
        assert output_distance("kl", torch.tensor([[0.0, 1e3]]), torch.tensor([[0.0, gap]])).item() == max(-gap, 0)


@pytest.mark.parametrize("name", OUTPUTS)
def test_output_distances(name: Any) -> None:
    """Against direct formulas, by finite differences in both arguments, and at distance 0."""
    a, b = (normal(BATCH, CLASSES, seed=seed).requires_grad_() for seed in (1, 2))
    p, q = a.softmax(dim=1), b.softmax(dim=1)
    divergence = (p * (p / q).log()).sum(dim=1)
    direct = {
        "kl": divergence,
        "sqrt_2kl": (2 * divergence).sqrt(),
        "l2_logits": (a - b).norm(dim=1),
        "l2_probs": (p - q).norm(dim=1),
    }
    torch.testing.assert_close(output_distance(name, a, b), direct[name])
    assert torch.autograd.gradcheck(lambda a, b: output_distance(name, a, b), (a, b))
    same = output_distance(name, a, a.detach())
    assert torch.equal(same, torch.zeros_like(same))
    assert torch.autograd.grad(same.sum(), a)[0].abs().max() < 1e-15
    if name != "kl":
        naive = (2 * divergence * 0).sqrt()
        assert torch.autograd.grad(naive.sum(), a)[0].isnan().all(), "what a bare root would give"


def test_kl_keeps_its_digits_in_float32() -> None:
    a = normal(50, 10)
    b = a + 1e-3 * normal(50, 10, seed=1)
    a, b = a.float(), b.float()
    exact = output_distance("kl", a.double(), b.double())
    error = (output_distance("kl", a, b) - exact).abs() / exact
    log_p = a.log_softmax(dim=1)
    naive = ((log_p.exp() * (log_p - b.log_softmax(dim=1))).sum(dim=1) - exact).abs() / exact
    assert error.max() < 0.01 < naive.max()


def test_kl_per_length_has_no_scale_and_its_root_has() -> None:
    """KL / epsilon falls to 0 with epsilon and rises to max_j (W d)_j - p W d; the limits differ for d and -d."""
    f, x = linear(), normal(1, FEATURES)
    d = adversarial_neighbour(f, x, LipschitzSettings(epsilon_min=1, epsilon_max=1), seeded()).r
    lengths = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 1e4)
    names: tuple[Any, ...] = ("kl", "sqrt_2kl")
    kl, root = ([output_distance(name, f(x), f(x + e * d)).item() / e for e in lengths] for name in names)
    assert kl == sorted(kl)
    assert kl[0] * 1e3 == pytest.approx(kl[1] * 1e2, rel=0.05)
    assert root[0] == pytest.approx(root[1], rel=0.05)
    slopes = {}
    for sign in (1, -1):
        Wd, p = f(sign * d), f(x).softmax(dim=1)
        slopes[sign] = (Wd.max() - (p * Wd).sum()).item()
        assert output_distance("kl", f(x), f(x + sign * 1e4 * d)).item() / 1e4 == pytest.approx(slopes[sign], rel=1e-3)
    assert max(slopes.values()) > 5 * min(slopes.values())


def test_a_long_probe_prefers_the_steeper_of_two_signs_and_a_short_one_does_not() -> None:
    """It ascends from where the random start has put it, so it prefers that sign and does not always have it."""
    f, x = linear(), normal(2000, FEATURES)

    def share_of_better_signs(xi: float) -> float:
        d = adversarial_neighbour(f, x, LipschitzSettings(xi=xi, epsilon_min=10, epsilon_max=10), seeded()).r
        ahead, behind = (output_distance("kl", f(x), f(x + sign * d)) for sign in (1, -1))
        return (ahead > behind).float().mean().item()

    assert 0.6 < share_of_better_signs(10.0) < 1
    assert share_of_better_signs(1e-3) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("poison", [math.inf, math.nan])
@pytest.mark.parametrize("d_y", OUTPUTS)
def test_quotients_that_are_not_finite_are_counted_and_left_out(d_y: Any, poison: float) -> None:
    f, x, settings = linear(), normal(BATCH, FEATURES), LipschitzSettings(d_y=d_y, K=0.01)
    r = adversarial_neighbour(f, x, settings, seeded()).r
    expected = lipschitz_penalty(f(x), f(x + r), r, settings).value
    logits = f(x + r)
    logits[1, 0], r[2] = poison, 0
    logits[2] = f(x)[2]
    logits.requires_grad_()
    found = lipschitz_penalty(f(x), logits, r, settings)
    assert found.excluded() == 2
    kept = [0, 3, 4, 5]
    torch.testing.assert_close(found.mean(), expected[kept].mean())
    (gradient,) = torch.autograd.grad(found.mean(), logits)
    assert gradient.isfinite().all()
    assert (gradient.norm(dim=1) > 0).tolist() == [index in kept for index in range(BATCH)]
    assert not output_distance(d_y, f(x), logits).mean().isfinite(), "what averaging over all gives"


def test_all_excluded_is_zero() -> None:
    logits = torch.full((BATCH, CLASSES), math.nan, requires_grad=True)
    found = lipschitz_penalty(torch.zeros(BATCH, CLASSES), logits, torch.ones(BATCH, 2), LipschitzSettings())
    assert (found.mean().item(), found.excluded().item()) == (0, BATCH)


def test_one_iteration_is_one_forward_and_one_backward_pass_to_the_inputs() -> None:
    network, x = convolutions(), normal(BATCH, 3, 32, 32).float()

    def flops(task: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            task()
        return counter.get_total_flops()

    with torch.no_grad():
        clean, forward = network(x), flops(lambda: network(x))
    for iterations in (0, 1, 2):
        settings = LipschitzSettings(iterations=iterations)
        given = flops(lambda s=settings: adversarial_neighbour(network, x, s, seeded(), clean_logits=clean))
        own = flops(lambda s=settings: adversarial_neighbour(network, x, s, seeded()))
        assert given == 2 * iterations * forward
        assert own == given + (forward if iterations else 0)
    trainable = flops(lambda: network(x.clone().requires_grad_()).sum().backward())
    assert trainable == 3 * forward, "the counter sees gradients of parameters"


def test_random_starts_fill_the_cube_or_the_sphere() -> None:
    """Fourth moment over squared second one: 9/5 of the uniform distribution, 3 of the normal one."""
    x = torch.zeros(50, 1000)
    names: tuple[Any, ...] = ("uniform", "gaussian")
    for name, kurtosis in zip(names, (1.8, 3.0), strict=True):
        r = adversarial_neighbour(lambda v: v, x, LipschitzSettings(iterations=0, direction=name), seeded()).r
        d = r / r.norm(dim=1, keepdim=True)
        assert (d.pow(4).mean() / d.pow(2).mean() ** 2).item() == pytest.approx(kurtosis, rel=0.03)
        assert d.mean().abs() < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_y": "sqrt_kl"}, "d_y: unknown choice 'sqrt_kl'; did you mean 'sqrt_2kl'"),
        ({"sides": "both"}, "sides: unknown choice"),
        ({"K": -1.0}, "K must be at least 0"),
        ({"power": 0}, "power must be at least 1"),
        ({"xi": 0.0}, "xi must be greater than 0"),
        ({"iterations": -1}, "iterations must be at least 0"),
        ({"epsilon_min": 2.0, "epsilon_max": 1.0}, "epsilon_max must be at least 2.0"),
        ({"epsilon_min": 0.0, "epsilon_max": 0.0}, "epsilon_max must be greater than 0"),
        ({"clip": (1.0, -1.0)}, "clip: expected"),
        ({"clip_result": True}, "clip_result: there is nothing to clip to"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LipschitzSettings(**options)


@pytest.mark.parametrize(
    ("name", "clean", "moved", "message"),
    [
        ("l3", (2, 3), (2, 3), "unknown distance 'l3'"),
        ("kl", (2, 3), (1, 3), "expected logits"),
        ("kl", (2, 3, 4), (2, 3, 4), "expected logits"),
        ("abs", (2, 3), (2, 3), "'abs' is for one output"),
        ("kl", (2, 1), (2, 1), "softmax of one output is always 1"),
    ],
)
def test_logits_without_meaning(name: Any, clean: tuple[int, ...], moved: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        lipschitz.output_distance(name, torch.zeros(clean), torch.zeros(moved))


def test_inputs_without_features() -> None:
    with pytest.raises(InputError, match="add an axis"):
        adversarial_neighbour(lambda v: v, torch.zeros(3), LipschitzSettings(d_y="abs"), seeded())
