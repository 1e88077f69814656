"""CT-GAN's classifier: its equation on recorded passes, the generator's own step, resuming; with mutations."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.lab import ImageLab, Lab
from support.properties import PROPERTIES, ledger_is
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.methods import Method, Supervised
from vicinal.methods.ct_gan import CTGAN
from vicinal.networks import Parts
from vicinal.training.config import Training
from vicinal.vicinity import squared_error

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

SMALL = {"latent": 5, "width": 4}


def recorded(lab: Lab, student: nn.Module, **settings: Any) -> tuple[dict[str, Any], list[Any]]:
    """Terms of a step, and what each pass of the student gave: labelled, real, real again, generated."""
    outputs: list[Any] = []
    method = lab.prepare(CTGAN(**SMALL, **settings), student, again=True)
    handle = student.register_forward_hook(lambda network, inputs, output: outputs.append(output))
    terms = lab.loss(method, student)
    handle.remove()
    assert len(outputs) == 4
    return terms, outputs


def equations_hold(lab: Lab) -> None:
    """CE, binary CE with D = sigmoid(log sum exp), and CT of two dropout draws of the same images; with weights."""
    terms, (labelled, first, second, fake) = recorded(lab, lab.network(dropout=0.5))
    torch.testing.assert_close(terms["supervised"].value, F.cross_entropy(labelled, lab.y))
    real, generated = (logits.exp().sum(dim=1).log().sigmoid() for logits in (first.logits, fake))
    binary = F.binary_cross_entropy(real, torch.ones(8)) + F.binary_cross_entropy(generated, torch.zeros(8))
    torch.testing.assert_close(terms["adversarial"].value, binary)
    p, other = first.logits.softmax(dim=1), second.logits.softmax(dim=1)
    ct = ((p - other) ** 2).sum() / (8 * 4) + 0.1 * ((first.features - second.features) ** 2).mean()
    torch.testing.assert_close(terms["consistency"].value, ct)
    assert ct > 1e-3
    assert {name: term.weight for name, term in terms.items()} == {
        "supervised": 1.0,
        "adversarial": 0.5,
        "consistency": 0.5,
    }


def constants_on_all_logits_move_d_alone(lab: Lab) -> None:
    student, shifted = lab.network(dropout=0.5), lab.network(dropout=0.5)
    shifted.head.bias.data += 3.0
    found, moved = recorded(lab, student)[0], recorded(lab, shifted)[0]
    for name in ("supervised", "consistency"):
        torch.testing.assert_close(found[name].value, moved[name].value)
    assert abs(found["adversarial"].value - moved["adversarial"].value) > 0.1


def without_dropout_ct_is_zero(lab: Lab) -> None:
    """Exactly, with a gradient of zero; and with dropout it is not."""
    student = lab.network()
    value = recorded(lab, student)[0]["consistency"].value
    assert value.item() == 0.0
    assert not lab.gradient(value, student).any()
    assert recorded(lab, lab.network(dropout=0.5))[0]["consistency"].value.item() > 1e-3


def both_branches_have_a_gradient(lab: Lab) -> None:
    """Of CT, on the logits and on the features of both passes."""
    terms, (_, first, second, _) = recorded(lab, lab.network(dropout=0.5))
    wanted = [first.logits, second.logits, first.features, second.features]
    gradients = torch.autograd.grad(terms["consistency"].value, wanted, allow_unused=True)
    assert all(part is not None and part.abs().max() > 1e-4 for part in gradients), gradients


def generators_learn_nothing_from_the_loss(lab: Lab) -> None:
    student = lab.network(dropout=0.5)
    method = lab.prepare(CTGAN(**SMALL), student)
    lab.total(lab.loss(method, student)).backward()
    assert all(parameter.grad is None for parameter in method.generator.parameters())
    assert list(method.trained()) == []
    assert any(name.startswith("generator.") for name in method.state_dict())


def without_weights_it_is_supervised(lab: Lab) -> None:
    student, other = lab.network(dropout=0.5), lab.network(dropout=0.5)
    method = CTGAN(weight=0.0, gan_weight=0.0, **SMALL)
    found = lab.gradient(lab.total(lab.loss(method, student)), student)
    assert torch.equal(found, lab.gradient(lab.total(lab.loss(Supervised(), other)), other))


def scores(change: Callable[[Tensor], Tensor]) -> Mutation:
    """The mutation of the score s whose sigmoid is D."""
    return lambda patch: patch.setattr(Tensor, "logsumexp", lambda self, dim: change(torch.logsumexp(self, dim=dim)))


def normalised_scores(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tensor, "logsumexp", lambda self, dim: self.log_softmax(dim=dim).amax(dim=dim))


def consistency(wrong: Any) -> Mutation:
    return lambda patch: patch.setattr("vicinal.methods.ct_gan.squared_error", wrong)


def detached_head(patch: pytest.MonkeyPatch) -> None:
    """Mutation: the first draw is a constant target."""
    consistency(lambda target, logits: squared_error(target.detach(), logits))(patch)


def noisy_features(patch: pytest.MonkeyPatch) -> None:
    """Mutation: each pass has noise of its own in its features."""
    original = Parts.__new__

    def wrong(cls: Any, logits: Tensor, features: Tensor, feature_map: Any) -> Any:
        return original(cls, logits, features + 0.1 * torch.rand(len(features), 1), feature_map)

    patch.setattr(Parts, "__new__", wrong)


def graph_to_the_generator(patch: pytest.MonkeyPatch) -> None:
    changed = SimpleNamespace(**{**vars(torch), "no_grad": torch.enable_grad})
    patch.setattr("vicinal.methods.ct_gan.torch", changed)


def never_weightless(patch: pytest.MonkeyPatch) -> None:
    original = CTGAN.loss

    def wrong(self: CTGAN, step: Any) -> Any:
        return {name: term._replace(weight=max(term.weight, 1e-3)) for name, term in original(self, step).items()}

    patch.setattr(CTGAN, "loss", wrong)


def trains_the_generator(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CTGAN, "trained", lambda self: self.parameters())


CHECKS = [
    pytest.param(equations_hold, scores(lambda s: -s), id="equations | real and generated exchanged"),
    pytest.param(equations_hold, consistency(lambda t, logits: 4 * squared_error(t, logits)), id="equations | CT sums"),
    pytest.param(constants_on_all_logits_move_d_alone, normalised_scores, id="constant | D of probabilities"),
    pytest.param(
        constants_on_all_logits_move_d_alone,
        consistency(lambda t, logits: squared_error(t, logits + logits.square())),
        id="constant | CT of logits",
    ),
    pytest.param(without_dropout_ct_is_zero, noisy_features, id="CT | other noise"),
    pytest.param(both_branches_have_a_gradient, detached_head, id="branches | one detached"),
    pytest.param(generators_learn_nothing_from_the_loss, graph_to_the_generator, id="loss | graph to the generator"),
    pytest.param(generators_learn_nothing_from_the_loss, trains_the_generator, id="trained | with the generator"),
    pytest.param(without_weights_it_is_supervised, never_weightless, id="supervised limit | weights > 0"),
]


@pytest.fixture(params=[Lab, ImageLab], ids=["vectors", "images"])
def lab(request: pytest.FixtureRequest) -> Lab:
    made: Lab = request.param()
    return made


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_holds(check: Check, mutate: Mutation, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_fails_when_mutated(check: Check, mutate: Mutation, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)


@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(holds: Callable[[Lab, Method], None], lab: Lab) -> None:
    holds(lab, CTGAN())


def test_ledger_and_cost(lab: Lab) -> None:
    assert str(CTGAN().passes()) == "f+5F+2d+b+3B+X+y"
    ledger_is(lab, CTGAN(), "f* F* F F F F")


def test_published_settings() -> None:
    training = Training(**CTGAN.experiment["training"])
    assert (training.optimizer, training.learning_rate, training.momentum, training.schedule) == (
        "adam",
        3e-4,
        0.5,
        "constant",
    )
    method = CTGAN()
    assert (method.generator_learning_rate, method.generator_beta1, method.feature_weight) == (3e-4, 0.5, 0.1)
