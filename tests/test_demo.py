"""The demonstration's training, on a tiny model: `make demo` itself needs the real one."""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Console

from specdef.demo import _fine_tune, _table


def test_a_model_is_fine_tuned_and_shown(toy_model: Path) -> None:
    console = Console(record=True, width=120)
    points = _fine_tune("original", toy_model, 2, console)
    assert [point.step for point in points] == [0, 1, 2]
    assert points[0].utility == 1.0
    assert all(math.isfinite(point.utility) for point in points)
    assert points[2].utility != points[0].utility
    console.print(_table({"original": points, "locked": points[:1]}))
    shown = console.export_text()
    assert "original  step 2: score 0." in shown
    assert "perplexity-growth 1" in shown
