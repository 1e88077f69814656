"""The page of the estimator: its Python blocks run, one after the other, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "estimator.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def run_blocks(text: str) -> dict[str, Any]:
    """Run the blocks in one namespace; a traceback names the line of the page."""
    names: dict[str, Any] = {}
    for found in BLOCK.finditer(text):
        line = text[: found.start(1)].count("\n")
        exec(compile("\n" * line + found.group(1), str(PAGE), "exec"), names)
    return names


@pytest.fixture
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of pictures, dark ones with even numbers."""
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    for k in range(12):
        pixels = rng.integers(0, 100, (70, 60, 3)) + 150 * (k % 2)
        image.fromarray(pixels.astype(np.uint8)).save(f"photos/{k}.png")


@pytest.mark.usefixtures("_photos")
def test_the_blocks_run(capsys: pytest.CaptureFixture[str]) -> None:
    names = run_blocks(PAGE.read_text(encoding="utf-8"))
    out = capsys.readouterr().out
    accuracy = re.search(r"accuracy ([\d.]+)%", out)
    assert accuracy is not None
    assert float(accuracy[1]) > 85
    assert "method vat" in out
    assert names["model"].predict(names["vectors"]).tolist() == [
        "dog" if int(name.removesuffix(".png")) % 2 else "cat" for name in names["names"]
    ]


def test_a_block_that_fails_would_be_seen() -> None:
    assert len(BLOCK.findall(PAGE.read_text(encoding="utf-8"))) >= 7
    with pytest.raises(ZeroDivisionError):
        run_blocks("text\n\n```python\n1 / 0\n```\n")


def test_the_table_says_what_the_code_does() -> None:
    from vicinal.estimator import EXTENT, NEAREST

    page = PAGE.read_text(encoding="utf-8")
    assert f"{NEAREST:g} of the median distance" in page
    assert f"{EXTENT:g} of the root mean square distance" in page
    assert "1000 labels or more" in page
