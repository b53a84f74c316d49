"""How far one cell is, by what it said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specdef.certify.events import CellEvent

ENOUGH = 3
"""Steps of a running cell from which the rest of it can be told, while no cell has finished."""


@dataclass
class Progress:
    """One cell.

    Attributes:
        event: the latest it said.
        asked: when it was first heard of.
        started: when it left the queue; None while it waits.
        trained: when its first step began.
        ended: when it finished.
    """

    event: CellEvent
    asked: float = 0.0
    started: float | None = None
    trained: float | None = None
    ended: float | None = None

    @property
    def waits(self) -> bool:
        """It has not begun, as far as is known."""
        return self.started is None and self.ended is None

    @property
    def runs(self) -> bool:
        """It has begun and not ended."""
        return self.started is not None and self.ended is None

    def spent(self, now: float) -> float:
        """Seconds since it left the queue, or those it took in all."""
        if self.started is None:
            return 0.0
        return (now if self.ended is None else self.ended) - self.started

    def expected(self, now: float) -> float | None:
        """Seconds the whole cell takes at the speed of its steps so far; None where too few were done."""
        if self.started is None or self.trained is None or self.event.step < min(ENOUGH, self.event.steps):
            return None
        each = (now - self.trained) / self.event.step
        return self.trained - self.started + each * self.event.steps
