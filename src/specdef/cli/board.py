"""Where every cell of a batch is, and how long the rest takes. Nothing is printed here."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from specdef.cli.cell_progress import Progress
from specdef.core.text import counted

if TYPE_CHECKING:
    from specdef.certify.events import CellEvent


class Board:
    """The cells of the batch that runs; safe to call from several threads. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cells: dict[str, Progress] = {}

    def clear(self) -> None:
        """Begin another batch; cells that were begun ahead of it run on."""
        with self._lock:
            self._begin()

    def _begin(self) -> None:
        self._cells = {key: one for key, one in self._cells.items() if one.runs}

    def take(self, event: CellEvent, now: float) -> None:
        """Note what a cell said."""
        with self._lock:
            if event.phase == "waiting" and not any(one.waits for one in self._cells.values()):
                self._begin()  # the stage goes on with another batch
            found = self._cells.setdefault(event.key, Progress(event, now))
            if event.phase != "waiting" and found.started is None:
                found.started = now
            if event.score is not None and found.trained is None:
                found.trained = now
            found.event = event

    def finish(self, key: str, now: float) -> None:
        """Note that a cell ended."""
        with self._lock:
            if key in self._cells:
                self._cells[key].ended = now

    def cells(self) -> Mapping[str, Progress]:
        """Every cell of the batch by its key, in the order they were asked for."""
        with self._lock:
            return dict(self._cells)

    def running(self) -> list[Progress]:
        """The cells that have begun and not ended."""
        return [one for one in self.cells().values() if one.runs]

    def left(self, now: float) -> float | None:
        """Seconds until the batch has ended; None while too little is known.

        Cells take as long for a step as those that finished took, loading and scoring included; before one has, as
        those that run are expected to. A running cell is given what its own steps say, once they say it.
        """
        cells = list(self.cells().values())
        running = self.running()
        ended = [one for one in cells if one.ended is not None]
        if ended and all(one.started is None for one in cells):
            return self._left_unheard(cells, ended)
        known = [(one.spent(now), one.event.steps) for one in ended if one.started is not None]
        if not known:
            known = [(found, one.event.steps) for one in running if (found := one.expected(now)) is not None]
        if not known:
            return None
        each = sum(seconds for seconds, _ in known) / sum(steps for _, steps in known)
        rest = [max(0.0, (one.expected(now) or each * one.event.steps) - one.spent(now)) for one in running]
        queued = sum(each * one.event.steps for one in cells if one.waits)
        return max([(sum(rest) + queued) / max(1, len(running)), *rest])

    def _left_unheard(self, cells: list[Progress], ended: list[Progress]) -> float:
        """The same of cells that do not say where they are, as on a cluster: by the pace of those that ended."""
        spent = max(one.ended or 0.0 for one in ended) - min(one.asked for one in cells)
        steps = sum(one.event.steps for one in ended)
        return spent / max(1, steps) * sum(one.event.steps for one in cells if one.ended is None)

    def summary(self, now: float) -> str:
        """The batch in a few words: how many cells are done, and the time left."""
        cells = self.cells()
        if not cells:
            return "no cell is running yet"
        done = sum(one.ended is not None for one in cells.values())
        return f"{done} of {counted(len(cells), 'cell')} done" + time_left(self.left(now))


def described(event: CellEvent) -> str:
    """Where a cell is, in words."""
    parts = [f"{event.phase} at step {event.step}/{event.steps}" if event.step else f"{event.phase}"]
    parts += [] if event.loss is None else [f"loss {event.loss:.3f}"]
    parts += [] if event.score is None else [f"score {event.score:.3f}"]
    return ", ".join(parts)


def time_left(seconds: float | None) -> str:
    """The time left, to go at the end of a line.

    Example:
        >>> time_left(None), time_left(42.1), time_left(1000)
        ('', ', about 45 s left in this batch', ', about 17 min left in this batch')
        >>> time_left(0.0)
        ', the last scores are being taken'
    """
    if seconds is None:
        return ""
    if seconds <= 0:
        return ", the last scores are being taken"
    short = f"{5 * math.ceil(seconds / 5)} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"
    return f", about {short} left in this batch"
