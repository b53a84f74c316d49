"""Cells in time: none is begun once the minutes are over, to the second, and what is known is never run again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import synthetic

from specdef.certify import timed_cells
from specdef.certify.cell import Cell
from specdef.certify.result import StoredCell
from specdef.certify.store import Store
from specdef.certify.timed_cells import OutOfTimeError, TimedCells


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as its one entry."""
    now = [1000.0]
    monkeypatch.setattr(timed_cells, "now", lambda: now[0])
    return now


def cells(count: int) -> list[Cell]:
    study = synthetic.study()
    return [study.cell(study.locked, lr=10.0**-power) for power in range(2, 2 + count)]


class Counting:
    """Runs cells, and counts how often each was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def run(self, cells: Sequence[Cell]) -> object:
        self.asked += [cell.key for cell in cells]
        return synthetic.Pretended(synthetic.holds).run(cells)


def test_the_minutes_are_over_to_the_second(clock: list[float], tmp_path: Path) -> None:
    timed = TimedCells(Store(tmp_path), 2.0, None, started=clock[0])
    first, second = cells(2)
    for clock[0], over in ((1119.999, False), (1120.0, True), (1121.0, True)):
        assert timed.is_over is over
    clock[0] = 1119.0
    assert timed.seconds == 119.0
    assert [cell.key for cell in timed.run(Counting(), [first])] == [first.key]  # type: ignore[arg-type]
    clock[0] = 1120.0
    assert timed.run(Counting(), [first])[0].key == first.key, "what is there is read"  # type: ignore[arg-type]
    with pytest.raises(OutOfTimeError):
        timed.run(Counting(), [first, second])  # type: ignore[arg-type]
    assert not TimedCells(Store(tmp_path), None, None, started=0.0).is_over


def test_every_cell_is_told_and_known_and_found_again(clock: list[float], tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def on_cell(cell: StoredCell, done: int, total: int) -> None:
        assert cell.key in timed.known, "known before anyone is told"
        told.append((cell.key, done, total))

    timed = TimedCells(Store(tmp_path), None, on_cell)
    batch = cells(3)
    runner = Counting()
    found = timed.run(runner, batch)  # type: ignore[arg-type]
    assert told == [(cell.key, at + 1, 3) for at, cell in enumerate(batch)]
    assert timed.known == {cell.key: cell for cell in found}
    later = TimedCells(Store(tmp_path), None, None)
    assert later.find(batch[0]) == found[0], "from the store"
    assert later.known.keys() == {batch[0].key}
    assert later.run(runner, batch) == found  # type: ignore[arg-type]
    assert runner.asked == [cell.key for cell in batch], "once each"
    assert later.known == {cell.key: cell for cell in found}, "what was read counts as known"
    assert later.find(cells(4)[3]) is None
