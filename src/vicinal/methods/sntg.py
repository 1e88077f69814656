"""Smooth neighbours on teacher graphs (Luo et al. 2018), on four methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.methods.base import Cost, Method, Model, Needs, Origin, Step, Term
from vicinal.methods.mean_teacher import MeanTeacher
from vicinal.methods.pi_model import PiModel
from vicinal.methods.temporal_ensembling import TemporalEnsembling
from vicinal.methods.vat import VATEntMin
from vicinal.networks import Parts
from vicinal.settings import check
from vicinal.vicinity import full_precision

_SOURCE = "Luo et al. 2018 (CVPR)"
_EMA: Mapping[str, Any] = {"averaging": {"kind": "ema"}}


def neighbour_loss(features: Tensor, classes: Tensor, margin: float) -> Tensor:
    """Features of one class near each other, of two classes at least ``margin`` apart; a scalar.

    Example j makes a pair with example j + N // 2 (if N is odd, the last has none). With d the root mean square of the
    pair's difference over the D features, a pair of equal classes costs d^2, another max(0, margin - d)^2; the result
    is the mean over pairs.

    Args:
        features: (N, D).
        classes: int64 (N,); -1 is unknown, and pairs with it are left out.
        margin: in units of the features.

    Returns:
        A scalar with a gradient in both of a pair, and none where d = 0; 0 with a graph if there are no pairs.
    """
    half = len(features) // 2
    difference = full_precision(features[:half]) - full_precision(features[half : 2 * half])
    first, second = classes[:half], classes[half : 2 * half]
    # Not the root of the mean square: at 0 its gradient is infinite, that of the norm is 0.
    d = torch.linalg.vector_norm(difference, dim=1) / features.shape[1] ** 0.5
    costs = torch.where(first == second, difference.square().mean(dim=1), F.relu(margin - d).square())
    known = (first >= 0) & (second >= 0)
    return torch.where(known, costs, 0).sum() / known.sum().clamp(min=1)


class _Kept(Model):
    """A network that keeps what its passes gave, in their order."""

    def __init__(self, model: Model) -> None:
        super().__init__(model.network, shared_seed=model.shared_seed, policy=model.policy, gradient=model.gradient)
        self.made: list[Parts] = []

    def __call__(self, x: Tensor, *args: Any, **settings: Any) -> Tensor:
        self.made.append(self.parts(x, *args, **settings))
        return self.made[-1].logits

    def judged(self, number: int) -> Tensor:
        """The classes that a pass predicted, int64 (B,)."""
        return self.made[number].logits.argmax(dim=1)


class SNTG(Method):
    """A term for any method whose first two passes are those of the student on labelled and unlabelled examples.

    With h(.) the student's pooled features in those passes, c_i the true class of a labelled example and the most
    probable class of the teacher's output for an unlabelled one, the term is::

        neighbour_weight w(t) mean_(i,j) [ c_i = c_j ] d_ij^2 + [ c_i != c_j ] max(0, margin - d_ij)^2
        d_ij^2 = mean_k ( h_k(i) - h_k(j) )^2

    over the pairs of the joint batch after a random permutation (its first half with its second), w(t) being the weight
    of the method's own consistency term. The gradient reaches the features of both; the classes are constants.

    Published runs evaluate a moving average of the weights, from which experiments with the variants without an
    averaged teacher start. Source: Luo et al. 2018, CVPR; official code.

    Args:
        neighbour_weight: weight of the term, as a multiple of the ramped consistency weight (official code: 0.4).
        margin: distance of different classes beyond which there is no loss, > 0.
    """

    source: ClassVar[str] = _SOURCE
    origins: ClassVar[Mapping[str, Origin]] = {"neighbour_weight": "official-code", "margin": "official-code"}
    _follows: ClassVar[str] = "consistency"

    neighbour_weight: float = 0.4
    margin: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # of the method that it is mixed into
        check("neighbour_weight", self.neighbour_weight, low=0)
        check("margin", self.margin, above=0)

    def loss(self, step: Step) -> dict[str, Term]:
        student = _Kept(step.student)
        teacher = None if step.teacher is None else _Kept(step.teacher)
        judge = self._judge(step, student, teacher)
        terms = super().loss(replace(step, student=student, teacher=teacher))
        labelled, unlabelled = student.made[:2]
        order = torch.randperm(len(step.y) + len(step.u[0]), generator=step.generator("pairs")).to(step.y.device)
        features = torch.cat([labelled.features, unlabelled.features])[order]
        classes = torch.cat([step.y, judge()])[order]
        weight = self.neighbour_weight * terms[self._follows].weight
        terms["neighbours"] = Term(neighbour_loss(features, classes, self.margin), weight)
        return terms

    def _judge(self, step: Step, student: _Kept, teacher: _Kept | None) -> Callable[[], Tensor]:
        """What gives the classes of the unlabelled examples, int64 (B,), once the method has made its passes."""
        raise TypeError(f"{type(self).__name__} says nothing of its teacher")


class PiSNTG(SNTG, PiModel):
    """The Pi-model with neighbours on the graph of its second branch's classes.

    `PiModel` plus `SNTG`. Source: Luo et al. 2018, CVPR; official code.
    """

    needs: ClassVar[Needs] = PiModel.needs._replace(features=True)
    source: ClassVar[str] = _SOURCE
    origins: ClassVar[Mapping[str, Origin]] = {**PiModel.origins, **SNTG.origins}
    experiment: ClassVar[Mapping[str, Any]] = {**PiModel.experiment, **_EMA}

    def _judge(self, step: Step, student: _Kept, teacher: _Kept | None) -> Callable[[], Tensor]:
        return lambda: student.judged(2)


class TemporalEnsemblingSNTG(SNTG, TemporalEnsembling):
    """Temporal ensembling with neighbours on the graph of the ensembled classes.

    `TemporalEnsembling` plus `SNTG`; pairs with a row that has not been seen yet are left out. Source: Luo et al. 2018,
    CVPR; official code.
    """

    needs: ClassVar[Needs] = TemporalEnsembling.needs._replace(features=True)
    source: ClassVar[str] = _SOURCE
    origins: ClassVar[Mapping[str, Origin]] = {**TemporalEnsembling.origins, **SNTG.origins}
    experiment: ClassVar[Mapping[str, Any]] = _EMA

    def _judge(self, step: Step, student: _Kept, teacher: _Kept | None) -> Callable[[], Tensor]:
        # Before this step's predictions enter the bank.
        target, seen = self.targets(cast(Tensor, step.u_index))
        classes = torch.where(seen, target.argmax(dim=1), -1)
        return lambda: classes


class MeanTeacherSNTG(SNTG, MeanTeacher):
    """Mean Teacher with neighbours on the graph of the teacher's classes.

    `MeanTeacher` plus `SNTG`. No code for it was found: what counts as the teacher's output, and the weight, are our
    reading. Source: Luo et al. 2018, CVPR.
    """

    needs: ClassVar[Needs] = MeanTeacher.needs._replace(features=True)
    source: ClassVar[str] = _SOURCE
    origins: ClassVar[Mapping[str, Origin]] = {**MeanTeacher.origins, **SNTG.origins, "neighbour_weight": "ours"}

    def _judge(self, step: Step, student: _Kept, teacher: _Kept | None) -> Callable[[], Tensor]:
        return lambda: cast(_Kept, teacher).judged(0)


class VATEntMinSNTG(SNTG, VATEntMin):
    """VAT with entropy minimisation, and neighbours on the graph of the clean predictions' classes.

    `VATEntMin` plus `SNTG`, whose weight is a multiple of ``weight`` (there is no ramp). No code for it was found: what
    counts as the teacher's output, and the weight, are our reading. Source: Luo et al. 2018, CVPR.
    """

    needs: ClassVar[Needs] = VATEntMin.needs._replace(features=True)
    cost: ClassVar[Cost] = VATEntMin.cost
    source: ClassVar[str] = _SOURCE
    origins: ClassVar[Mapping[str, Origin]] = {**VATEntMin.origins, **SNTG.origins, "neighbour_weight": "ours"}
    experiment: ClassVar[Mapping[str, Any]] = _EMA
    _follows: ClassVar[str] = "smoothness"

    @property
    def _clean_teaches(self) -> bool:
        return True

    def _judge(self, step: Step, student: _Kept, teacher: _Kept | None) -> Callable[[], Tensor]:
        return lambda: student.judged(1)
