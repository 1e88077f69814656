"""The step computes what its floor computes, and nothing beside: counted, so that it holds on every machine."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from step_count import BESIDE, Counts, count
from step_floor import Subject

from vicinal.methods import (
    CVT,
    ICT,
    METHODS,
    VAT,
    AdvMixup,
    Context,
    Cost,
    Method,
    Needs,
    PGDTraining,
    Step,
    Supervised,
    Term,
)
from vicinal.networks import mmd_vae, small_cnn
from vicinal.training.averaging import AveragingSettings
from vicinal.vicinity import codes, decoded

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

SHAPE, CLASSES = (3, 8, 8), 10
LABELLED, UNLABELLED = 4, 6


class OnePassMore(ICT):
    """ICT that looks at the clean labelled batch, as its official code does, and does not say so."""

    def loss(self, step: Step) -> dict[str, Term]:
        with torch.no_grad():
            step.student(step.x)
        return super().loss(step)


class OneHeadMore(CVT):
    """CVT that asks the primary head once more."""

    def loss(self, step: Step) -> dict[str, Term]:
        terms = super().loss(step)
        with torch.no_grad():
            step.student.head(torch.zeros(UNLABELLED, 4))
        return terms


class Boasting(AdvMixup):
    """AdvMixup that says it searches without a backward pass."""

    cost: ClassVar[Cost] = AdvMixup.cost

    def passes(self) -> Cost:
        return super().passes()._replace(X=0)


class BoastingOfAttacks(PGDTraining):
    """The same of a search on the labelled batch."""

    def passes(self) -> Cost:
        return super().passes()._replace(x=0)


def subject_of(method: Method) -> Subject:
    """A method on a tiny network of the kind that it trains."""
    torch.manual_seed(0)
    network = (
        small_cnn(SHAPE, CLASSES, widths=(4, 4))
        if method.trains == "classifier"
        else mmd_vae(SHAPE, CLASSES, widths=(4,), latent=3)
    )
    return Subject(method, network, shape=SHAPE, labelled=LABELLED, unlabelled=UNLABELLED)


def counted(subject: Method | Subject) -> tuple[Counts, Counts]:
    """Step and floor; batches differ in size, so that f is not mistaken for F."""
    if isinstance(subject, Method):
        subject = subject_of(subject)
    counts = []
    for run in (subject.step, subject.floor):
        subject.clear()
        counts.append(count(run))
    return counts[0], counts[1]


@pytest.mark.parametrize("name", METHODS)
def test_a_step_computes_what_its_floor_computes(name: str) -> None:
    """To the last operation, but for what stands in the list with its reason."""
    subject = subject_of(METHODS[name]())
    step, floor = counted(subject)
    assert step.flops - floor.flops == (BESIDE[name].flops(subject) if name in BESIDE else 0)
    assert step.calls > floor.calls


def test_exceptions_are_methods_and_are_small() -> None:
    assert set(BESIDE) <= set(METHODS)
    for name in BESIDE:
        step, floor = counted(METHODS[name]())
        assert step.flops != floor.flops
        assert 0.95 < step.flops / floor.flops < 1.05, name


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (AdvMixup, {"iterations": 2}),
        (AdvMixup, {"pairing": "real-real"}),
        (AdvMixup, {"epsilon": 0}),
        (AdvMixup, {"space": "input", "distance": "kl", "partner": "own"}),
        (VAT, {"iterations": 3}),
        (VAT, {"entropy_weight": 0.5, "masks": "fresh"}),
        (ICT, {"logging_passes": True}),
        (ICT, {"mix_labelled": False, "mix_space": "logits"}),
        (PGDTraining, {"steps": 3, "search": "eval"}),
        (PGDTraining, {"epsilon": 0}),
    ],
    ids=str,
)
def test_settings_change_step_and_floor_alike(method: type[Method], settings: dict[str, Any]) -> None:
    step, floor = counted(method(**settings))
    assert step.flops == floor.flops


@pytest.mark.parametrize("method", [OnePassMore, Boasting, BoastingOfAttacks])
def test_a_pass_that_is_not_declared_shows(method: type[Method]) -> None:
    step, floor = counted(method())
    assert step.flops > floor.flops


def test_a_pass_of_the_head_shows() -> None:
    subject = subject_of(OneHeadMore())
    step, floor = counted(subject)
    assert step.flops - floor.flops == BESIDE["cvt"].flops(subject) + 2 * UNLABELLED * 4 * CLASSES


@pytest.mark.parametrize("name", METHODS)
def test_steps_and_floors_take_turns(name: str) -> None:
    """As in the timing: nothing that a floor or a part of a step leaves behind changes the next step's operations."""
    subject = subject_of(METHODS[name]())
    found = []
    for _ in range(2):
        subject.clear()
        found.append(count(subject.step))
        subject.clear()
        found.append(count(subject.floor))
        for part in (subject.feed, subject.optimise, subject.follow):
            part()
    assert found[0].flops == found[2].flops
    assert found[1] == found[3]
    assert next(subject.module.student.parameters()).isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_the_step_is_the_methods_own(name: str) -> None:
    """Its optimiser, the average that it asks for, and second networks that move."""
    method = METHODS[name]()
    subject = subject_of(method)
    asked = method.experiment
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[asked.get("training", {}).get("optimizer", "sgd")]
    assert type(subject.optimizer) is optimizer
    assert subject.module.averaging == AveragingSettings(**asked.get("averaging", {}))
    generator = getattr(method, "generator", None)
    before = [] if generator is None else [parameter.clone() for parameter in generator.parameters()]
    subject.step()
    if subject.module.averaging.kind == "ema":
        assert subject.module.average is not None
        assert subject.module.average.updates == 1
    if generator is not None:
        assert not all(map(torch.equal, before, generator.parameters()))


def test_the_floor_is_as_cheap_as_counted_by_hand() -> None:
    """f + b of the tiny network, two operations per multiplication and addition."""
    _, floor = counted(METHODS["supervised"]())
    first, second, head = 64 * 27 * 4, 16 * 36 * 4, 4 * 10
    # Backward: gradients of weights and of inputs, except of the images.
    assert floor.flops == 2 * 4 * (first + second + head + first + 2 * second + 2 * head)


@pytest.mark.parametrize(("letters", "images"), [({"f": 2, "x": 1}, LABELLED), ({"F": 1, "X": 1}, UNLABELLED)], ids=str)
def test_a_backward_pass_to_the_input_as_counted_by_hand(letters: dict[str, int], images: int) -> None:
    """Gradients of inputs alone, the images' among them."""
    first, second, head = 64 * 27 * 4, 16 * 36 * 4, 4 * 10
    found = []
    for cost in (Cost(**letters), Cost(**letters)._replace(x=0, X=0)):
        method = METHODS["supervised"]()
        method.passes = lambda cost=cost: cost  # type: ignore[method-assign]
        found.append(counted(method)[1].flops)
    assert found[0] - found[1] == 2 * images * (first + second + head)


class Coding(Supervised):
    """Reconstructs, decodes another code, and asks for the gradient to a third."""

    needs: ClassVar[Needs] = Needs(autoencoder=True)
    cost: ClassVar[Cost] = Cost(f=1, b=1, e=1, d=3, y=1)

    def prepare(self, context: Context) -> None:
        assert context.autoencoder is not None
        self.autoencoder = context.autoencoder

    def loss(self, step: Step) -> dict[str, Term]:
        z = codes(self.autoencoder, step.x)
        for code in (z, -z):
            decoded(self.autoencoder, code)
        code = z.clone().requires_grad_()
        torch.autograd.grad(self.autoencoder.decode(code).sum(), code)
        return super().loss(step)


class CodingOnceMore(Coding):
    """And does not say so."""

    def loss(self, step: Step) -> dict[str, Term]:
        codes(self.autoencoder, step.x)
        return super().loss(step)


def test_an_autoencoder_is_given_and_its_passes_are_in_the_floor() -> None:
    step, floor = counted(Coding())
    assert step.flops == floor.flops
    more, same = counted(CodingOnceMore())
    assert same.flops == floor.flops
    assert more.flops > step.flops
