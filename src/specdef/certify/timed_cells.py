"""The cells of a certificate: run while there is time, and remembered, so that what is asked next can be guessed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from specdef.certify.ahead import RunAll, asked_next, under_way
from specdef.certify.cell import Cell
from specdef.certify.executors.local import Executor
from specdef.certify.result import StoredCell
from specdef.certify.store import Store
from specdef.certify.sweep import OnCell, sweep


def now() -> float:
    """Seconds on the clock that the minutes are told by."""
    return time.perf_counter()


class OutOfTimeError(Exception):
    """The minutes are over and a cell would have to be begun."""


@dataclass
class TimedCells:
    """Runs cells while there is time, and remembers what they came to.

    Attributes:
        store: finished cells; those it holds are not run again.
        minutes: how long cells are begun; None sets no end.
        on_cell: called after every cell.
        started: when the minutes began, by `now`.
        known: key -> what the cell came to.
    """

    store: Store
    minutes: float | None
    on_cell: OnCell | None
    started: float = field(default_factory=now)
    known: dict[str, StoredCell] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Since the minutes began."""
        return now() - self.started

    @property
    def is_over(self) -> bool:
        """Whether no cell is begun any more."""
        return self.minutes is not None and self.seconds >= 60 * self.minutes

    def run(self, executor: Executor, cells: Sequence[Cell]) -> list[StoredCell]:
        """The results of a batch. Once the minutes are over, cells under way are finished and none is begun.

        Raises:
            OutOfTimeError: one would have to be begun.
        """
        if not self.is_over:
            return self._sweep(executor, cells)
        found = {cell.key: self.store.read(cell) for cell in cells}
        running = under_way(executor)
        going = [cell for cell in cells if found[cell.key] is None and cell.key in running]
        found |= {cell.key: cell for cell in self._sweep(executor, going)}
        done = [found[cell.key] for cell in cells]
        if None in done:
            raise OutOfTimeError
        return [cell for cell in done if cell is not None]

    def likely(self, follow: RunAll, pending: Sequence[Cell]) -> list[Cell]:
        """What will probably be asked for next by what `follow` follows; nothing once the minutes are over."""
        if self.is_over:
            return []
        return asked_next(follow, self.find, pending, [*self.known.values()])

    def find(self, cell: Cell) -> StoredCell | None:
        """A finished cell."""
        if cell.key not in self.known and (stored := self.store.read(cell)) is not None:
            self.known[cell.key] = stored
        return self.known.get(cell.key)

    def _sweep(self, executor: Executor, cells: Sequence[Cell]) -> list[StoredCell]:
        found = sweep(cells, self.store, executor, on_cell=self._note)
        self.known.update({cell.key: cell for cell in found})
        return found

    def _note(self, cell: StoredCell, done: int, total: int) -> None:
        self.known[cell.key] = cell
        if self.on_cell is not None:
            self.on_cell(cell, done, total)
