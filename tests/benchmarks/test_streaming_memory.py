"""An evaluation of four times as many images takes no more memory, and the measurement sees one that does."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import streaming_memory
from streaming_memory import AIM, BATCH, CONTROL, EVALUATIONS, QUICK, images, measured, peak

STREAMING = [name for name in EVALUATIONS if name != CONTROL]


@pytest.fixture(scope="module")
def grown() -> dict[str, float]:
    """By how much the peak is greater: of all streaming evaluations in one process, and of the control."""
    runs = [(names, n) for names in (STREAMING, [CONTROL]) for n in reversed(QUICK)]
    with ThreadPoolExecutor(2) as pool:  # of processes that wait for nothing but themselves
        large, small, held_large, held_small = (found["peak"] for found in pool.map(lambda run: measured(*run), runs))
    return {"streaming": large / small, CONTROL: held_large / held_small}


def test_a_streaming_evaluation_does_not_grow(grown: dict[str, float]) -> None:
    assert grown["streaming"] <= AIM


def test_one_that_holds_its_batches_is_noticed(grown: dict[str, float]) -> None:
    assert grown[CONTROL] > 1.3


def test_images_are_drawn_as_they_are_asked_for() -> None:
    drawn = images(10**9)
    (x, y), again = next(drawn), next(images(BATCH))
    assert x.shape == (BATCH, 3, 32, 32)
    assert 0 <= x.min() < x.max() < 1
    assert x.equal(again[0])
    assert y.equal(again[1])
    assert not next(drawn)[0].equal(x)
    assert [len(y) for _, y in images(BATCH + 3)] == [BATCH, 3]


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only /proc tells the peak of a process from others'"
)
def test_the_peak_of_whoever_starts_a_process_is_not_its_own() -> None:
    """``ru_maxrss`` of a small process that a large one starts is the large one's."""
    code = f"import resource, sys\nfrom pathlib import Path\n{inspect.getsource(peak)}\nprint(peak())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 1 < float(done.stdout) < 50 < peak()


def test_what_is_written_has_its_provenance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        streaming_memory,
        "measured",
        lambda names, n: {"n": n, "before": 100.0, "peak": 150.0 + n / 1000, "seconds": 1.0},
    )
    monkeypatch.setattr(sys, "argv", ["streaming_memory.py", "--only", "figures", "--output", str(tmp_path)])
    streaming_memory.main()
    written = json.loads((tmp_path / "results.json").read_text())
    assert {"command", "commit", "machine", "sizes", "rows"} <= written.keys()
    assert written["rows"][0]["ratio"] == 250 / 160
    assert written["rows"][0]["bytes_per_image"] == 1000
    text = (tmp_path / "table.md").read_text()
    assert "| figures    |       160.0 |        250.0 | 1.562 |         60.0 |         150.0 |           1000 |" in text
    assert written["machine"]["torch"] in text
