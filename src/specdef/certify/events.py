"""What cells say while they run: for people who wait. No result depends on it, and none of it is stored."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

from specdef.certify.cell import Cell
from specdef.training.outcome import Evaluation


class Phase(StrEnum):
    """What a cell is doing."""

    WAITING = "waiting"
    LOADING = "loading"
    TRAINING = "training"
    SCORING = "scoring"


@dataclass(frozen=True)
class CellEvent:
    """Where one cell is.

    Attributes:
        key: names the cell.
        model: the model's name.
        label: the attack, for people.
        phase: what it does now.
        step: optimizer steps done.
        steps: optimizer steps of the recipe.
        loss: on the task's samples, of the latest step; None before the first.
        score: of the latest evaluation; None before the first.
    """

    key: str
    model: str
    label: str
    phase: Phase
    step: int
    steps: int
    loss: float | None = None
    score: float | None = None


Listen = Callable[[CellEvent], None]
"""Told where a cell is; what it raises is lost, since whoever watches must not fail a cell."""


def waiting(cell: Cell) -> CellEvent:
    """The cell before it runs."""
    recipe = cell.attack.recipe
    label = f"{cell.attack.label}, seed {recipe.seed}"
    return CellEvent(cell.key, cell.subject.name, label, Phase.WAITING, 0, recipe.steps)


def tell(listen: Listen | None, event: CellEvent) -> None:
    """Say it, if anybody listens; a closed pipe or a fault of the listener is no fault of the cell's."""
    if listen is not None:
        with suppress(Exception):
            listen(event)


class Teller:
    """Turns the calls of an attack in progress into events.

    Args:
        cell: what runs.
        listen: who is told.
    """

    def __init__(self, cell: Cell, listen: Listen | None) -> None:
        self._listen, self._every = listen, cell.attack.recipe.eval_every
        self._event = replace(waiting(cell), phase=Phase.LOADING)
        tell(listen, self._event)

    def on_step(self, step: int, loss: float) -> None:
        """After a step."""
        scores = step == self._event.steps or step % self._every == 0
        self._say(phase=Phase.SCORING if scores else Phase.TRAINING, step=step, loss=loss)

    def on_evaluation(self, point: Evaluation) -> None:
        """After an evaluation."""
        self._say(phase=Phase.TRAINING, step=point.step, score=point.score)

    def _say(self, **changes: object) -> None:
        self._event = replace(self._event, **changes)  # type: ignore[arg-type]
        tell(self._listen, self._event)
