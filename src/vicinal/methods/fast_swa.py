"""Mean Teacher with fast stochastic weight averaging (Athiwaratkun et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from vicinal.methods.base import Context, Cost, Model, Needs, Origin, Step, Term
from vicinal.methods.mean_teacher import MeanTeacher
from vicinal.networks import Classifier
from vicinal.settings import check


class MeanTeacherFastSWA(MeanTeacher):
    """Mean Teacher with a second head for consistency, under a cyclic learning rate, averaged over its cycles.

    With f the class head, g a second head on the same features, and theta' the moving average of theta::

        L = mean_i CE(y_i, f(x_i)) + w(t) mean_{i,c} ( softmax g_theta(u^a_i)_c - softmax f_theta'(u^b_i)_c )^2
            + logit_weight mean_{i,c} ( f_theta(u^a_i)_c - g_theta(u^a_i)_c )^2

    The last term, on logits, has its gradient in both heads. The second head is trained with the network and not used
    for prediction. What is evaluated is the equally weighted mean of the student's weights at many points of the
    cycles, with renewed running statistics: the groups ``averaging`` (kind "swa") and ``training`` (schedule "cyclic")
    of an experiment, whose defaults are the published run of 1200 epochs.

    Published weights stand beside a cross-entropy that is summed over 50 labelled examples and divided by the whole
    batch of 100, so they are doubled here: 100 gives 200, 0.01 gives 0.02. (With the loss twice as large, the published
    learning rate of 0.1 is 0.05 here, and the weight decay of 1e-4 is 2e-4.) There, consistency and logit distance run
    over labelled examples too; here over the unlabelled ones. Source: Athiwaratkun et al. 2019, ICLR; official code.

    Args:
        weight: maximal consistency weight, squared error as a mean over classes.
        logit_weight: weight of the squared distance between the two heads' logits, a mean over classes.
        ramp_length: share of the training that the rise takes (official code: 5 epochs of 1200).
    """

    needs: ClassVar[Needs] = Needs(views=2, teacher=True, features=True)
    cost: ClassVar[Cost] = Cost(f=1, F=1, T=1, b=1, B=1)
    source: ClassVar[str] = "Athiwaratkun et al. 2019 (ICLR)"
    origins: ClassVar[Mapping[str, Origin]] = {
        **MeanTeacher.origins,
        "weight": "official-code",
        "logit_weight": "official-code",
        "distance": "official-code",
        "ramp_length": "official-code",
    }
    experiment: ClassVar[Mapping[str, Any]] = {"training": {"schedule": "cyclic"}, "averaging": {"kind": "swa"}}

    weight: float = 200.0
    logit_weight: float = 0.02
    ramp_length: float = 5 / 1200

    def __post_init__(self) -> None:
        super().__post_init__()
        check("logit_weight", self.logit_weight, low=0)

    def prepare(self, context: Context) -> None:
        assert isinstance(context.network, Classifier)
        self.second = context.network.another_head()

    def loss(self, step: Step) -> dict[str, Term]:
        student = _TwoHeaded(step.student, self.second, step.u[0])
        terms = super().loss(replace(step, student=student))
        terms["logit_distance"] = Term((student.first - student.other).square().mean(), self.logit_weight)
        return terms


class _TwoHeaded(Model):
    """The student, but for one batch: there its prediction is the second head's, and both heads' logits are kept."""

    first: Tensor
    other: Tensor

    def __init__(self, student: Model, head: nn.Module, batch: Tensor) -> None:
        super().__init__(student.network, shared_seed=student.shared_seed, policy=student.policy)
        self.second_head = head
        self.batch = batch

    def __call__(self, x: Tensor, *args: Any, **settings: Any) -> Tensor:
        if x is not self.batch:
            return super().__call__(x, *args, **settings)
        parts = self.parts(x, *args, **settings)
        self.first, self.other = parts.logits, self.second_head(parts.features)
        return self.other
