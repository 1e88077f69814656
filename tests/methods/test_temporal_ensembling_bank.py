"""Temporal ensembling's bank against the published update: exact bias correction, rows that miss; with mutations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.lab import Lab
from torch import Tensor

from vicinal.data.streams import Stream
from vicinal.methods.temporal_ensembling import TemporalEnsembling

torch.set_num_threads(1)

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

_update = TemporalEnsembling.update


def ready(lab: Lab, **settings: Any) -> TemporalEnsembling:
    """The method with an empty bank of 40 rows and 4 classes."""
    method = TemporalEnsembling(**settings)
    lab.prepare(method, lab.network(), again=True)
    return method


def probabilities(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).softmax(dim=1)


def constant_predictions_are_their_own_target(lab: Lab) -> None:
    """At every epoch: the bias correction is exact."""
    for alpha in (0.0, 0.6, 0.99):
        method, rows, p = ready(lab, alpha=alpha), torch.arange(40), probabilities(40)
        for _ in range(6):
            method.update(rows, p)
            target, seen = method.targets(rows)
            assert seen.all()
            torch.testing.assert_close(target, p, rtol=2e-6 / (1 - alpha), atol=0)


def one_epoch_is_its_prediction(lab: Lab) -> None:
    method, rows, p = ready(lab), torch.tensor([7, 2]), probabilities(2)
    method.update(rows, p)
    torch.testing.assert_close(method.targets(rows)[0], p)
    assert method.targets(torch.arange(40))[1].nonzero().flatten().tolist() == [2, 7]


def epochs_that_miss_a_row_do_not_count(lab: Lab) -> None:
    """Published code: 0.7 in epochs 0 to 3, left out of epoch 4, becomes a target of 0.396. Here it stays 0.7."""
    method, rows, p = ready(lab), torch.arange(2), torch.tensor([[0.7, 0.3, 0, 0]]).repeat(2, 1)
    for epoch in range(5):
        seen = rows if epoch < 4 else rows[:1]
        method.update(seen, p[: len(seen)])
    assert method.targets(rows)[0][:, 0].tolist() == pytest.approx([0.7, 0.7], abs=1e-6)


def bank_goes_by_row(lab: Lab) -> None:
    """And not by position in the batch: the order of the rows in a batch does not count."""
    method, p, order = ready(lab), probabilities(40), torch.randperm(40, generator=torch.Generator().manual_seed(1))
    for part in order.split(8):
        method.update(part, p[part])
    torch.testing.assert_close(method.targets(torch.arange(40))[0], p)


def targets_sum_to_one(lab: Lab) -> None:
    method, rows = ready(lab), torch.arange(40)
    for epoch in range(7):
        seen = rows[: 40 - 5 * epoch]
        method.update(seen, probabilities(len(seen), epoch))
    torch.testing.assert_close(method.targets(rows)[0].sum(dim=1), torch.ones(40))


def immediate_updates_are_those_of_the_epochs_end(lab: Lab) -> None:
    """Over the library's own order, with batches that go over the end of an epoch, against the published update."""
    stream = Stream(torch.arange(40), 16, seed=3, purpose="unlabelled")
    method, published = ready(lab), torch.zeros(40, 4)
    drawn = [stream.batch(step) for step in range(10)]
    predictions = [probabilities(16, step) for step in range(10)]
    for rows, p in zip(drawn, predictions, strict=True):
        method.update(rows, p)
    rows, p = torch.cat(drawn), torch.cat(predictions)
    assert len(rows) == 4 * 40
    for epoch in range(4):
        of_epoch = torch.zeros(40, 4)
        of_epoch[rows[epoch * 40 : epoch * 40 + 40]] = p[epoch * 40 : epoch * 40 + 40]
        published = 0.6 * published + 0.4 * of_epoch
    torch.testing.assert_close(method.targets(torch.arange(40))[0], published / (1 - 0.6**4))


def rows_that_come_twice_count_twice(lab: Lab) -> None:
    """In their order, whatever stands between them."""
    whole, single = ready(lab), ready(lab)
    rows, p = torch.tensor([5, 3, 5, 9, 3, 5]), probabilities(6)
    for _ in range(2):
        whole.update(rows, p)
        for k in range(6):
            single.update(rows[k : k + 1], p[k : k + 1])
    torch.testing.assert_close(whole.predictions, single.predictions)
    assert torch.equal(whole.times, single.times)
    assert whole.times[[5, 3, 9]].tolist() == [6, 4, 2]


def with_update(wrong: Callable[[TemporalEnsembling, Tensor, Tensor], None]) -> Mutation:
    return lambda patch: patch.setattr(TemporalEnsembling, "update", wrong)


def by_position(self: TemporalEnsembling, rows: Tensor, predictions: Tensor) -> None:
    _update(self, torch.arange(len(rows)), predictions)


def zeros_for_the_rest(self: TemporalEnsembling, rows: Tensor, predictions: Tensor) -> None:
    """Mutation: rows that are not there are updated with zeros, as in the published code."""
    everybody = torch.zeros_like(self.predictions)
    everybody[rows] = predictions
    _update(self, torch.arange(len(everybody)), everybody)


def last_write_wins(self: TemporalEnsembling, rows: Tensor, predictions: Tensor) -> None:
    self.predictions[rows] = self.alpha * self.predictions[rows] + (1 - self.alpha) * predictions
    self.times[rows] += 1


def uncorrected(self: TemporalEnsembling, rows: Tensor) -> tuple[Tensor, Tensor]:
    return self.predictions[rows], self.times[rows] > 0


CHECKS = [
    pytest.param(
        constant_predictions_are_their_own_target,
        lambda patch: patch.setattr(TemporalEnsembling, "targets", uncorrected),
        id="constant | no bias correction",
    ),
    pytest.param(one_epoch_is_its_prediction, with_update(by_position), id="one epoch | by position"),
    pytest.param(epochs_that_miss_a_row_do_not_count, with_update(zeros_for_the_rest), id="missed epoch | as zeros"),
    pytest.param(bank_goes_by_row, with_update(by_position), id="rows | by position"),
    pytest.param(targets_sum_to_one, with_update(zeros_for_the_rest), id="sum | missed epochs as zeros"),
    pytest.param(
        immediate_updates_are_those_of_the_epochs_end, with_update(last_write_wins), id="epoch's end | one per batch"
    ),
    pytest.param(rows_that_come_twice_count_twice, with_update(last_write_wins), id="twice | last write wins"),
]


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_holds(check: Check, mutate: Mutation, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_fails_when_mutated(check: Check, mutate: Mutation, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)


def test_published_loss_of_mass() -> None:
    """The negative control: an unseen epoch averaged in as zeros, divided by 1 - 0.6^5."""
    z = 0.0
    for epoch in range(5):
        z = 0.6 * z + 0.4 * (0.7 if epoch < 4 else 0.0)
    assert z / (1 - 0.6**5) == pytest.approx(0.396, abs=5e-4)
    assert 73257 % 100 == 57
