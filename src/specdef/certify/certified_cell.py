"""The rows of a certificate: what a finished cell, or a control, puts into it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from specdef.attacks.base import Attack
from specdef.attacks.wire import attack_from_wire
from specdef.certify.cell_result import RewriteFacts
from specdef.certify.environment import Environment
from specdef.certify.findings import CONTROLS, TASK_CONTROLS, UNLOCKED
from specdef.certify.result import Point, StoredCell, point_of
from specdef.certify.statistics import Interval, score_interval
from specdef.tasks.score import Score
from specdef.training.outcome import Outcome


@dataclass(frozen=True)
class RewriteCost:
    """What rewriting weights cost, and a training step afterwards. None where it was not measured."""

    seconds: float | None
    seconds_per_step: float | None
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class ControlFacts:
    """The undefended model after training on one of the task's controls.

    Attributes:
        task: the task's name and its control's.
        cell: key of its result file.
        score: after the last step; None where nothing was measured.
        interval: of that score, over questions.
    """

    task: str
    cell: str
    score: float | None
    interval: Interval | None


@dataclass(frozen=True)
class CertifiedCell:
    """One cell: the attack, and what it came to.

    Attributes:
        threat_model: the threat model it was run for, or ``unlocked``, ``controls``, ``uncounted``.
        cell: key of its result file.
        config: the attack as `specdef.attacks.wire` writes it.
        outcome: how it ended.
        step: where the target was first reached within the utility budget; None when it was not.
        best: the evaluation with the highest score within the budget.
        best_at_any_cost: the evaluation with the highest score, whatever became of utility.
        last: the last evaluation.
        diverged_at: first evaluation with utility outside the budget.
        recovered: utility was lost and later regained.
        note: why the cell does not count, or "".
        rewrites: what was done to the weights before training.
        cost: of that; None where nothing was rewritten.
    """

    threat_model: str
    cell: str
    config: dict[str, Any]
    outcome: Outcome
    step: int | None
    best: Point | None
    best_at_any_cost: Point | None
    last: Point | None
    diverged_at: int | None
    recovered: bool
    note: str
    rewrites: tuple[RewriteFacts, ...] = ()
    cost: RewriteCost | None = None

    @cached_property
    def attack(self) -> Attack:
        """The attack."""
        return attack_from_wire(self.config)

    @property
    def attacks_task(self) -> bool:
        """Whether it was trained on the task itself, not on a control of it."""
        return self.threat_model != TASK_CONTROLS

    @property
    def undefended(self) -> bool:
        """Whether it is an attack on the undefended model: an ordinary one, or the control of a threat model's."""
        return self.threat_model in (UNLOCKED, CONTROLS)


def certified(threat_model: str, cell: StoredCell) -> CertifiedCell:
    """The row of a finished cell."""
    result = cell.result
    points = [point_of(evaluation) for evaluation in result.evaluations]
    return CertifiedCell(
        threat_model=threat_model,
        cell=cell.key,
        config=cell.config["attack"],
        outcome=result.outcome,
        step=result.step,
        best=None if result.best is None else point_of(result.best),
        best_at_any_cost=max(points, key=lambda point: point.score, default=None),
        last=points[-1] if points else None,
        diverged_at=result.diverged_at,
        recovered=result.recovered,
        note=result.note,
        rewrites=result.rewrites,
        cost=_cost(cell) if result.rewrites else None,
    )


def control_facts(cell: StoredCell) -> ControlFacts:
    """What a finished cell on a control of the task says."""
    last = cell.result.evaluations[-1] if cell.result.evaluations else None
    found = None if last is None else score_interval([Score(last.score, last.by_group)])
    return ControlFacts(cell.config["task"], cell.key, None if last is None else last.score, found)


def environments(cells: Iterable[StoredCell]) -> tuple[Environment, ...]:
    """The different machines, libraries and commits that cells come from: they may be older than the certificate."""
    found = [cell.measured.environment for cell in cells]
    known = [where for where in found if where is not None]
    return tuple(where for index, where in enumerate(known) if where not in known[:index])


def _cost(cell: StoredCell) -> RewriteCost:
    steps, measured = cell.result.steps, cell.measured
    each = round((measured.train_seconds or 0.0) / steps, 4) if steps else None
    return RewriteCost(measured.rewrite_seconds, each, measured.peak_memory_bytes)
