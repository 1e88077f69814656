"""Further measurements: once each, kept beside the run, of as many test examples as asked for; and refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal import measuring
from vicinal.assembling import Assembled
from vicinal.data import eval_batches, load
from vicinal.errors import InputError
from vicinal.evaluation.attacks import PGD
from vicinal.evaluation.measures import MEASURES, Measure
from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.grid import Grid
from vicinal.measuring import measure, measured, measures_of
from vicinal.runs import Run

torch.set_num_threads(1)


def described(**more: Any) -> Experiment:
    training = {"steps": 4, "batch_labelled": 5, "threads": 1, "device": "cpu"}
    values = {"data": "two_moons", "split": {"labels": 10}, "recipe": "none", "method": "supervised"}
    return Experiment.of({**values, "training": training, "network": {"name": "mlp", "hidden": [4]}, **more})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(described(), tmp_path_factory.mktemp("runs") / "run", progress=False).path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    return Run(shutil.copytree(finished, tmp_path / "run"))


@dataclass(frozen=True)
class Seen:
    """What a measurement of the tests gives."""

    n: int
    total: float


@dataclass(frozen=True, kw_only=True)
class Look:
    """Looks at the examples, which it keeps.

    Args:
        factor: of the total, at least 0.
    """

    factor: float = 1.0
    calls = []  # noqa: RUF012

    def __post_init__(self) -> None:
        if self.factor < 0:
            raise InputError("factor must be at least 0")

    def __call__(self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], seed: int) -> Seen:
        parts = list(batches)
        x, y = (torch.cat(part) for part in zip(*parts, strict=True))
        self.calls.append((network, x, y, seed))
        return Seen(len(y), self.factor * float(network(x).detach().sum()))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A measurement named look, and its calls."""
    monkeypatch.setitem(MEASURES, "look", Measure(Look, "looked", "total", percent=False))
    monkeypatch.setattr(Look, "calls", [])
    return Look.calls


def once_and_kept(run: Run, calls: list[Any]) -> None:
    """A file for each measurement and its settings; what is there is not measured again."""
    asked = measures_of("measure", {"look": {"n": 7}})
    assert measured(run, "look", asked["look"]) is None
    measure(run, asked)
    measure(run, asked)
    assert len(calls) == 1
    (file,) = (run.path / "measures").iterdir()
    content = json.loads(file.read_text())
    assert content["settings"] == {"factor": 1.0, "n": 7} == asked["look"]
    assert content["figures"] == measured(run, "look", asked["look"])
    # Another setting is another measurement; the same one written otherwise is not.
    other = measures_of("measure", {"look": {"factor": 2, "n": 7}})
    assert measured(run, "look", other["look"]) is None
    measure(run, other)
    measure(run, measures_of("measure", {"look": {"n": 7, "factor": 2.0}}))
    assert len(calls) == 2
    one, two = (measured(run, "look", each["look"]) for each in (asked, other))
    assert one is not None
    assert two is not None
    assert two["total"] == pytest.approx(2 * one["total"])


def of_test_examples_spread_evenly(run: Run, calls: list[Any]) -> None:
    """At most ``n`` of them, all by default; the weights at the end of training; the same draws for every run."""
    test = Assembled(run.experiment).dataset.test
    assert test is not None
    for n, count in ((7, 7), (None, len(test)), (10**6, len(test))):
        measure(run, measures_of("measure", {"look": {"n": n}}))
        network, x, y, seed = calls.pop()
        assert len(x) == len(y) == count
        rows = torch.arange(count) * len(test) // count
        assert torch.equal(x, test.x[rows])
        assert torch.equal(y, test.y[rows])
        last = run.network("last").network.state_dict()
        assert all(torch.equal(value, last[name]) for name, value in network.state_dict().items())
        assert not network.training
        assert seed == measuring.seed_of(0, "measuring")


CASES: list[tuple[str, Callable[[Run, list[Any]], None], str, Any]] = [
    ("once | every time", once_and_kept, "measured", lambda run, name, settings: None),
    ("once | whatever the settings", once_and_kept, "_path", lambda run, name, settings: run.path / "measures" / name),
    (
        "spread | not limited",
        of_test_examples_spread_evenly,
        "eval_batches",
        lambda examples, size: eval_batches(load(described().data).test, size),
    ),
    (
        "spread | other draws",
        of_test_examples_spread_evenly,
        "seed_of",
        lambda *names: Look.calls.append(0) or len(Look.calls),
    ),
]
IDENTITIES = [pytest.param(*case[1:], id=case[0]) for case in CASES]


@pytest.mark.parametrize(("check", "name", "value"), IDENTITIES)
def test_identity_holds(check: Callable[[Run, list[Any]], None], name: str, value: Any, run: Run, looks: Any) -> None:
    check(run, looks)


@pytest.mark.parametrize(("check", "name", "value"), IDENTITIES)
def test_identity_fails_when_mutated(
    check: Callable[[Run, list[Any]], None],
    name: str,
    value: Any,
    run: Run,
    looks: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, name, value, raising=False)
    with pytest.raises(AssertionError):
        check(run, looks)


def test_a_figure_is_that_of_the_measurement_itself(run: Run) -> None:
    asked = measures_of("measure", {"pgd": {"epsilon": 0.3, "bounds": None, "n": 60}, "lipschitz": {"n": 20}})
    measure(run, asked)
    found = measured(run, "pgd", asked["pgd"])
    test = Assembled(run.experiment).dataset.test
    assert test is not None
    few = test.spread(60)
    batch = few.x[torch.arange(60)], few.y
    direct = PGD(norm="linf", epsilon=0.3, bounds=None)(
        run.network().network, [batch], measuring.seed_of(0, "measuring")
    )
    assert found is not None
    assert found["n"] == 60
    assert found["error"] == direct.error > direct.clean_error
    assert {path.name.split("-")[0] for path in (run.path / "measures").iterdir()} == {"pgd", "lipschitz"}
    assert not list(run.path.rglob("*.partial"))


def test_a_run_is_measured_without_being_trained_or_evaluated_again(run: Run, looks: list[Any]) -> None:
    def files() -> dict[str, bytes]:
        kept = [path for path in run.path.rglob("*") if path.is_file() and path.parent.name != "measures"]
        return {str(path): path.read_bytes() for path in kept}

    before = files()
    measure(run, measures_of("measure", {"look": None}))
    assert len(looks) == 1
    assert files() == before


def test_without_a_test_part_there_is_nothing_to_measure(
    run: Run, looks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    untested = dataclasses.replace(Assembled(run.experiment).dataset, test=None)
    monkeypatch.setattr(measuring, "load", lambda data: untested)
    with pytest.raises(InputError, match=r"the data have no test part to measure on; leave out 'measure'$"):
        measure(run, measures_of("measure", {"look": {}}))
    measure(run, {})
    assert not looks


@pytest.mark.parametrize("name", MEASURES)
def test_settings_are_complete_and_of_their_types(name: str) -> None:
    made = measures_of("measure", {name: None})
    assert made[name].pop("n") is None
    built = MEASURES[name].settings(**made[name])
    assert built == MEASURES[name].settings()
    assert json.loads(json.dumps(made[name])).keys() == made[name].keys()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"pdg": {}}, "measure: unknown measurement 'pdg'; did you mean 'pgd'?"),
        ({3: {}}, "measure: unknown measurement 3"),
        ({"pgd": {"epsilom": 1}}, "measure.pgd.epsilom: unknown setting; did you mean 'epsilon'?"),
        ({"pgd": {"epsilon": "far"}}, "measure.pgd.epsilon: expected float, got 'far'"),
        ({"pgd": {"epsilon": -1}}, "measure.pgd: epsilon must be at least 0"),
        ({"pgd": {"norm": "l3"}}, "measure.pgd"),
        (
            {"corruptions": {"kinds": ["fgo"]}},
            "measure.corruptions: kinds: unknown corruption 'fgo'; did you mean 'fog'?",
        ),
        ({"corruptions": {"severities": [6]}}, "measure.corruptions: severities must be at most 5"),
        ({"pgd": {"n": 0}}, "measure.pgd.n: expected a number of examples of at least 1, got 0"),
        ({"pgd": {"n": "all"}}, "measure.pgd.n: expected a number of examples"),
        ({"pgd": {"n": True}}, "measure.pgd.n: expected a number of examples"),
        ({"pgd": 0.3}, "measure.pgd: expected settings, such as {n: 100}, got 0.3"),
        ({"pgd": ["epsilon"]}, "measure.pgd: expected settings"),
        (["pgd"], "measure: expected measurements with their settings, such as"),
        ("pgd", "measure: expected measurements"),
    ],
)
def test_what_is_wrong_is_one_line(asked: Any, words: str) -> None:
    base = {"data": "two_moons", "labels": 10, "recipe": "none"}
    with pytest.raises(InputError) as caught:
        Grid.of("g", {"base": base, "rows": ["supervised"], "measure": asked})
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)
