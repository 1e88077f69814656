"""Where gradients go and where they must not: teachers, targets, perturbations; and what unlabelled data may do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import properties
from support.training import examples, module_of, trained
from torch import Tensor, nn

from vicinal.data import Batch, Batches, Examples, SplitIndices
from vicinal.methods import ICT, METHODS, VAT, AdvMixup, Method, Step, VATEntMin
from vicinal.methods.base import Model
from vicinal.training.module import VicinalModule
from vicinal.vicinity import adversarial_direction, distance, kl

Check = Callable[[Any], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

CLASSIFIERS = {name: kind for name, kind in METHODS.items() if kind.trains == "classifier"}
EVERY = [kind() for kind in CLASSIFIERS.values()]
EVERY += [VAT(search="gauss_newton"), VAT(masks="fresh"), ICT(mix_space="logits"), AdvMixup(distance="kl")]
EVERY += [AdvMixup(pairing="adversarial-adversarial"), AdvMixup(partner="own", space="input")]
MIX_LABELS = {"mixmatch", "mixup_lr"}
"""Semi-supervised methods whose labelled term is not the plain one."""
SEMI_SUPERVISED = [name for name, kind in CLASSIFIERS.items() if kind.needs.views]
_model_init, _batches_init = Model.__init__, Batches.__init__


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing in the library."""
    return lambda patch: patch.setattr(f"vicinal.{target}", value)


def everywhere(holds: Callable[[Any, Method], None]) -> Check:
    """A property, of every method and of some with other settings, each in the lab that suits it."""

    def check(lab: Any) -> None:
        for method in EVERY:
            holds(lab.suited(method), copy.deepcopy(method))

    return check


def slope(value: Callable[[], Tensor], network: nn.Module) -> tuple[float, float]:
    """The derivative along a random direction in parameter space: from the gradient, and by central differences."""
    parameters = list(network.parameters())
    draws = torch.Generator().manual_seed(4)
    along = [torch.randn(parameter.shape, generator=draws, dtype=parameter.dtype) for parameter in parameters]
    gradient = torch.autograd.grad(value(), parameters)
    exact = sum(float((g * v).sum()) for g, v in zip(gradient, along, strict=True))
    ends = []
    for h in (1e-5, -1e-5):
        with torch.no_grad():
            for parameter, v in zip(parameters, along, strict=True):
                parameter += h * v
            ends.append(value().item())
            for parameter, v in zip(parameters, along, strict=True):
                parameter -= h * v
    return exact, (ends[0] - ends[1]) / 2e-5


def gradients_are_derivatives(lab: Any) -> None:
    """With r held fixed, the gradient is the loss's derivative by the student's parameters, in float64."""
    held = torch.randn(8, lab.features, generator=torch.Generator().manual_seed(1))
    held /= held.norm(dim=1, keepdim=True)
    for name in ("supervised", "mixup", "mean_teacher", "ict", "advmixup"):
        student, teacher = lab.pair(double=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vicinal.methods.advmixup.adversarial_direction", lambda *args, **rest: held)
            exact, differences = slope(lambda: lab.total(lab.loss(METHODS[name](), student, teacher)), student)  # noqa: B023
        assert exact == pytest.approx(differences, rel=1e-6)


def vat_targets_are_constants(lab: Any) -> None:
    """Smoothness has the gradient of KL(constant || p(u + r)), also where the entropy term goes through p(u)."""
    held = torch.randn(8, lab.features, generator=torch.Generator().manual_seed(1))
    student = lab.network(double=True)
    target = copy.deepcopy(student)(lab.u[0]).detach().softmax(dim=1)
    expected = lab.gradient(kl(target, student(lab.u[0] + held)).mean(), student)
    for method in (VAT(), VATEntMin()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vicinal.methods.vat.VAT._direction", lambda *args: held)
            found = lab.gradient(lab.loss(method, student)["smoothness"].value, student)
        torch.testing.assert_close(found, expected)


def labels_of_unlabelled_data_are_never_read(lab: Any) -> None:
    """Put -1 in their place: the same losses and the same weights, bit for bit, from batches to parameters."""
    for name in SEMI_SUPERVISED:
        lab = lab.suited(METHODS[name](), labelled=8)
        data, split = examples(lab)
        hidden = torch.full_like(data.y, -1)
        hidden[split.labelled] = data.y[split.labelled]
        network = lab.network(dropout=0.5)
        losses, weights = trained(lab, METHODS[name](), network, data, split)
        blind_losses, blind_weights = trained(lab, METHODS[name](), network, Examples(data.x, hidden), split)
        assert losses == blind_losses
        assert all(torch.equal(*pair) for pair in zip(weights, blind_weights, strict=True))


def weightless_methods_are_supervised(lab: Any) -> None:
    """With every unsupervised weight 0, the parameters are those of supervised training, bit for bit."""
    for name in SEMI_SUPERVISED:
        kind = METHODS[name]
        settings: dict[str, Any] = {key: 0.0 for key in kind().settings() if key.endswith("weight") or key == "lam"}
        if "mix_labelled" in kind().settings():
            settings["mix_labelled"] = False
        lab = lab.suited(kind())
        data, split = examples(lab)
        network = lab.network()
        _, expected = trained(lab, METHODS["supervised"](), network, data, split)
        assert not all(torch.equal(*pair) for pair in zip(expected, network.parameters(), strict=True))
        _, weights = trained(lab, kind(**settings), network, data, split)
        if name not in MIX_LABELS:
            assert all(torch.equal(*pair) for pair in zip(weights, expected, strict=True)), name


def optimisers_do_not_know_teachers(lab: Any) -> None:
    """No parameter of the teacher asks for a gradient or is in a parameter group; all of the student's are."""
    for name in ("mean_teacher", "ict", "advmixup"):
        module = module_of(lab, METHODS[name](), lab.network())
        assert module.teacher is not None
        groups = module.configure_optimizers()["optimizer"].param_groups
        optimised = {id(parameter) for group in groups for parameter in group["params"]}
        assert optimised == {id(parameter) for parameter in module.student.parameters()}
        assert not any(parameter.requires_grad for parameter in module.teacher.parameters())


def graph_to_the_teacher(patch: pytest.MonkeyPatch) -> None:
    wrong = lambda self, network, *, gradient=True, **rest: _model_init(self, network, **rest)  # noqa: E731
    patch.setattr(Model, "__init__", wrong)


def graph_through_the_search(patch: pytest.MonkeyPatch) -> None:
    def wrong(*args: Any, **settings: Any) -> Tensor:
        return adversarial_direction(*args, **settings) * torch.ones(1, requires_grad=True)

    patch.setattr("vicinal.methods.advmixup.adversarial_direction", wrong)


def reweighted(change: Callable[[float], float]) -> Mutation:
    """The mutation that changes the weight of every unsupervised term."""

    def wrapped(loss: Any) -> Any:
        def wrong(self: Method, step: Step) -> Any:
            terms = loss(self, step)
            return {
                name: term if name == "supervised" else term._replace(weight=change(term.weight))
                for name, term in terms.items()
            }

        return wrong

    def mutate(patch: pytest.MonkeyPatch) -> None:
        for kind in set(METHODS.values()) - {VATEntMin}:
            patch.setattr(kind, "loss", wrapped(kind.loss))

    return mutate


class Peeking:
    """Batches whose unlabelled inputs depend on whether their label is known."""

    def __init__(self, reader: Any, y: Tensor) -> None:
        self.reader, self.y = reader, y

    def __getitem__(self, step: int) -> Batch:
        batch: Batch = self.reader[step]
        return batch._replace(u=batch.u * (self.y[batch.u_index] >= 0)[:, None])


def labels_leak(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, train: Examples, split: SplitIndices, **rest: Any) -> None:
        _batches_init(self, train, split, **rest)
        self._reader = Peeking(self._reader, train.y)

    patch.setattr(Batches, "__init__", wrong)


def teachers_ask(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(nn.Module, "requires_grad_", lambda self, flag: self)


def targets_with_a_graph(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tensor, "detach", lambda self: self)


def _optimise_everything(self: VicinalModule) -> Any:
    return {"optimizer": self.training_settings.optimizer_for(self.parameters())}


def _in_probabilities(name: Any, target: Tensor, logits: Tensor) -> Tensor:
    return (target * (target / logits.softmax(dim=1)).log()).sum(dim=1)


def _halved(name: Any, target: Tensor, logits: Tensor) -> Tensor:
    return distance(name, target, logits.detach() + 0.5 * (logits - logits.detach()))


def _scaled(name: Any, target: Tensor, logits: Tensor) -> Tensor:
    value = distance(name, target, logits)
    return value * value.detach()


IDENTITIES = [
    pytest.param(everywhere(properties.teachers_get_no_gradient), graph_to_the_teacher, id="teacher | with a graph"),
    pytest.param(everywhere(properties.perturbations_are_constants), graph_through_the_search, id="r | with a graph"),
    pytest.param(gradients_are_derivatives, patched("methods.ict.distance", _halved), id="dL/dtheta | halved in ICT"),
    pytest.param(
        gradients_are_derivatives,
        patched("methods.advmixup.distance", _scaled),
        id="dL/dtheta | constant factor in AdvMixup",
    ),
    pytest.param(vat_targets_are_constants, targets_with_a_graph, id="VAT's target | with a graph"),
    pytest.param(
        everywhere(properties.unlabelled_data_moves_the_gradient),
        reweighted(lambda weight: 0.0),
        id="unlabelled data | no weight",
    ),
    pytest.param(labels_of_unlabelled_data_are_never_read, labels_leak, id="labels | leak into the inputs"),
    pytest.param(
        weightless_methods_are_supervised,
        reweighted(lambda weight: max(weight, 1e-3)),
        id="supervised limit | weight above 0",
    ),
    pytest.param(
        optimisers_do_not_know_teachers,
        patched("training.module.VicinalModule.configure_optimizers", _optimise_everything),
        id="optimiser | takes all parameters",
    ),
    pytest.param(optimisers_do_not_know_teachers, teachers_ask, id="optimiser | teacher asks for gradients"),
    pytest.param(
        everywhere(properties.terms_are_finite),
        patched("methods.advmixup.distance", _in_probabilities),
        id="finite | KL in probabilities",
    ),
]


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_holds(check: Check, mutate: Mutation, lab: Any) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_fails_when_mutated(check: Check, mutate: Mutation, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)
