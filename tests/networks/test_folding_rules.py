"""Which norms are folded: those where that is exact, by whatever way the network is called, and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.folding import BATCH_NORMS, count, enlivened, gap, seen
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from vicinal.errors import InputError
from vicinal.networks import Autoencoder, Classifier, FoldedNorm, Identity, MeanOnlyBatchNorm, folded, folding

torch.set_num_threads(1)


def conv(*sizes: int, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(*sizes, 3, **settings)


class TwoUses(nn.Module):
    """What lies between convolution and norm is used elsewhere, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(3, 4, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        before = self.conv(x)
        after: Tensor = self.norm(before)
        return after + before


class TwoCalls(TwoUses):
    """The norm is called twice."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.norm(x[:, [0, 1, 2, 0]])


class OwnUse(TwoUses):
    """The weights are used beside their layer."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) * self.conv.weight.square().mean()


class Branching(TwoUses):
    """What is computed depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if x.sum() > 0 else x


class OddNorm(nn.BatchNorm2d):
    """Not what it is called."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).square()


class Spoken(nn.Conv2d):
    """A convolution of somebody's own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def hooked() -> nn.Module:
    network = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4))
    network[0].register_forward_hook(lambda module, inputs, output: output.abs())
    return network


def shared_weights() -> nn.Module:
    network = nn.Sequential(conv(3, 3), nn.BatchNorm2d(3), nn.ReLU(), conv(3, 3))
    network[3].weight = network[0].weight
    return network


class UnderTwoNames(nn.Module):
    """The norm has two names, and another is called by a list that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = conv(3, 4), nn.BatchNorm2d(4)
        self.second, self.other = conv(4, 4), nn.BatchNorm2d(4)
        self.layers = nn.Sequential(self.first, self.norm)
        self.plain = [self.second, self.other]

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        for layer in self.plain:
            found = layer(found)
        return found


def classifier(body: nn.Module, head: nn.Module, **settings: Any) -> Classifier:
    return Classifier(Identity(), body, head, feature_dim=4, classes=3, **settings)


def between_body_and_head() -> nn.Module:
    """Features lie between a linear layer and its norm."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    return classifier(body, nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)))


def at_a_place() -> nn.Module:
    """A change of hidden activations comes between a convolution and its norm."""
    tail = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return classifier(nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), *tail), nn.Linear(4, 3), stages=(1,))


class Codes(Autoencoder):
    """Codes lie between a linear layer and its norm."""

    latent = 4

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = Identity()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
        self.decoder = nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 192), nn.Unflatten(1, (3, 8, 8)))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


ODD: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    # How many norms are folded, and how many are left.
    "used twice": (TwoUses, 0, 1),
    "called twice": (TwoCalls, 0, 1),
    "weights used by themselves": (OwnUse, 0, 1),
    "branches on values": (Branching, 0, 1),
    "a norm of its own kind": (lambda: nn.Sequential(conv(3, 4), OddNorm(4)), 0, 1),
    "a convolution of its own kind": (lambda: nn.Sequential(Spoken(3, 4, 3), nn.BatchNorm2d(4)), 0, 1),
    "hooks": (hooked, 0, 1),
    "two types": (lambda: nn.Sequential(conv(3, 4), nn.BatchNorm2d(4).double()), 0, 1),
    "no statistics": (lambda: nn.Sequential(conv(3, 4), nn.BatchNorm2d(4, track_running_stats=False)), 0, 1),
    "layers share weights": (shared_weights, 1, 0),
    "two names": (UnderTwoNames, 2, 0),
    "two convolutions": (lambda: nn.Sequential(conv(3, 3), nn.Sequential(nn.BatchNorm2d(3)), conv(3, 3)), 1, 0),
    "not affine": (lambda: nn.Sequential(conv(3, 4), nn.BatchNorm2d(4, affine=False)), 1, 0),
    "groups": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6)), 1, 0),
    "before": (lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), conv(3, 4, stride=2)), 1, 0),
    "before, groups": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), *between_groups()), 1, 1),
    "before, no bias": (lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), conv(3, 4, bias=False)), 1, 0),
    "before, padded": (lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), conv(3, 4, padding=1)), 0, 1),
    "before, 'same'": (lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), conv(3, 4, padding="same")), 0, 1),
    "before, 'valid'": (lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), conv(3, 4, padding="valid")), 1, 0),
    "before, mirrored": (
        lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), conv(3, 4, padding=1, padding_mode="reflect")),
        1,
        0,
    ),
    "before, mean only": (lambda: nn.Sequential(nn.ReLU(), MeanOnlyBatchNorm(3), conv(3, 4)), 1, 0),
    "before, linear": (lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 4)), 1, 0),
    "both": (lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), conv(3, 4), nn.BatchNorm2d(4)), 2, 0),
    "one dimension": (lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 4, 5), nn.BatchNorm1d(4)), 1, 0),
    "a linear layer of another axis": (lambda: nn.Sequential(nn.Flatten(2), nn.Linear(64, 5), nn.BatchNorm1d(3)), 0, 1),
    "before a linear layer of another axis": (
        lambda: nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(3), nn.Linear(64, 4)),
        0,
        1,
    ),
    # As many columns as channels: no count tells them apart.
    "a linear layer in images": (lambda: nn.Sequential(nn.Linear(8, 3), nn.BatchNorm2d(3)), 0, 1),
    "spectral norm": (lambda: nn.Sequential(parametrizations.spectral_norm(conv(3, 4)), nn.BatchNorm2d(4)), 1, 0),
    "between body and head": (between_body_and_head, 0, 1),
    "at a place": (at_a_place, 0, 1),
    "codes": (Codes, 0, 1),
}


def between_groups() -> list[nn.Module]:
    return [nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, groups=2)]


@pytest.mark.parametrize("name", ODD)
def test_only_what_is_exact_is_folded(name: str) -> None:
    build, expected, left = ODD[name]
    torch.manual_seed(0)
    network = enlivened(build())
    x = torch.rand(4, 3, 8, 8) - 0.3
    if name == "two types":
        assert count(folded(network), FoldedNorm) == 0
        return
    copied = folded(network)
    assert (count(copied, FoldedNorm), count(copied, *BATCH_NORMS)) == (expected, left)
    assert gap(seen(copied, x), seen(network.eval(), x)) < 1e-5


PLAIN: Callable[..., Any] = lambda network: [lambda net, x: net(x)]  # noqa: E731
"""No way to call a network but the usual one."""


@pytest.mark.parametrize(
    ("name", "target", "rule"),
    [
        ("before, padded", "_pads_nothing", lambda layer: True),
        ("hooks", "_fit", lambda norm, layer, before: True),
        ("between body and head", "_calls", PLAIN),
        ("at a place", "_calls", PLAIN),
        ("codes", "_calls", PLAIN),
    ],
)
def test_without_its_rules_it_would_not_be(name: str, target: str, rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, x = enlivened(ODD[name][0]()), torch.rand(4, 3, 8, 8) - 0.3
    monkeypatch.setattr(folding, target, rule)
    copied = folded(network)
    assert count(copied, FoldedNorm) == 1
    assert gap(seen(copied, x), seen(network.eval(), x)) > 1e-3


@pytest.mark.parametrize("target", ["_into_layer_before", "_into_layer_behind", "_affine"])
def test_a_wrong_fold_would_be_seen(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = enlivened(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), conv(4, 4)))
    x = torch.rand(2, 3, 8, 8)
    right: Any = getattr(folding, target)
    wrong: Callable[..., Any] = lambda *given: right(given[0], given[1], 0 * given[2])  # noqa: E731
    if target == "_affine":
        wrong = lambda norm: (right(norm)[0] * 1.001, right(norm)[1])  # noqa: E731
    assert gap(seen(folded(network), x), seen(network.eval(), x)) < 1e-5
    monkeypatch.setattr(folding, target, wrong)
    assert gap(seen(folded(network), x), seen(network.eval(), x)) > 1e-5


def test_a_linear_layer_whose_norm_sees_other_channels_is_refused() -> None:
    """On (B, 5, 5) the norm is over the first five, and the layer makes the second."""
    network = enlivened(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))).eval()
    copied = folded(network)
    torch.testing.assert_close(copied(torch.ones(2, 3)), network(torch.ones(2, 3)))
    assert network(torch.ones(2, 5, 3)).shape == (2, 5, 5)
    with pytest.raises(InputError, match=r"folded for inputs \(B, D\), got \(2, 5, 5\)"):
        copied(torch.ones(2, 5, 3))
