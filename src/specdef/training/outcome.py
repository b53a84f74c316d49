"""What a run ended as: score and utility together, never one of them alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

StopRule = Literal["budget", "ruin", "paper"]
"""budget: run to the step budget unless broken; ruin: also stop when utility is beyond repair; paper: also stop when it
is outside the budget (its section 5)."""
Within = Callable[[float, float, float], bool]
"""(utility at the start, utility now, budget) -> whether it is still good enough; each kind of utility has its own."""


def stop_rule(early_stop: bool) -> StopRule:
    """The rule that users name by yes or no: whether a run ends where its utility is outside the budget."""
    return "paper" if early_stop else "budget"


class Outcome(Enum):
    """How an attack ended. The values are written into result files and stay as they are; words are `report.phrases`'.

    `slowed` is `BROKEN` with more steps than the undefended model: a comparison, made later.
    """

    BROKEN = "broken"
    COLLAPSE = "held by collapse"
    STALL = "held by stall"
    INVALID = "invalid"
    CRASHED = "crashed"

    @property
    def counts(self) -> bool:
        """Whether the run says anything about a defence."""
        return self not in (Outcome.INVALID, Outcome.CRASHED)


class StopReason(Enum):
    """Why the loop ended. The values are written into result files and stay as they are."""

    TARGET = "target reached within the utility budget"
    BUDGET = "step budget spent"
    DIVERGED = "utility lost (the paper's stopping rule)"
    RUINED = "utility beyond repair"
    DEAD = "weights no longer finite: no later step can change them"
    INVALID = "step 0 differs from the undefended model"


@dataclass(frozen=True)
class Evaluation:
    """One measurement of a model.

    Attributes:
        step: optimizer steps done.
        score: on the task, in [0, 1].
        utility: what is left of the model besides the task, in the unit of its kind (perplexity of general text, or
            accuracy); infinite where it was no finite number.
        loss: of the last step on the task's samples; None at step 0 and where it was no finite number.
        by_group: the score of every group of questions that stand or fall together; None where that is not known.
        by_class: of a classifier, label -> the share of the task's rows that got it; None where there are no labels.
        utility_by_class: the same of the general data's rows.
    """

    step: int
    score: float
    utility: float
    loss: float | None = None
    by_group: tuple[float, ...] | None = None
    by_class: Mapping[str, float] | None = None
    utility_by_class: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.utility):  # one spelling, so that equal runs compare equal
            object.__setattr__(self, "utility", math.inf)
        if self.loss is not None and not math.isfinite(self.loss):
            object.__setattr__(self, "loss", None)


def evaluation_rows(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """A row an evaluation, for tables: step, score, utility, loss."""
    names = ("step", "score", "utility", "loss")
    return [{name: getattr(point, name) for name in names} for point in evaluations]


@dataclass(frozen=True)
class Judgement:
    """The outcome of a run, read from its evaluations.

    Attributes:
        outcome: see `Outcome`.
        step: where the target was first reached within the utility budget; None when it was not.
        best: the evaluation with the highest score within the utility budget.
        diverged_at: first evaluation with utility outside the budget; None when there was none.
        recovered: utility was lost and later regained.
    """

    outcome: Outcome
    step: int | None
    best: Evaluation
    diverged_at: int | None
    recovered: bool


def ratio_within(start: float, now: float, budget: float) -> bool:
    """The rule of perplexity: at most `budget` times that at the start.

    >>> ratio_within(10.0, 20.0, 2.0), ratio_within(10.0, 20.1, 2.0)
    (True, False)
    """
    return now <= budget * start


def never_ruined(start: float, now: float) -> bool:
    """The rule of a utility that can always come back."""
    return False


def classify_outcome(
    evaluations: Sequence[Evaluation],
    *,
    target: float,
    utility_factor: float,
    base: float | None = None,
    within: Within = ratio_within,
) -> Judgement:
    """Read the outcome of a run from its evaluations.

    A target reached while utility is lost is no success: both must hold at the same evaluation.

    Args:
        evaluations: the first is step 0.
        target: score to reach.
        utility_factor: the utility budget.
        base: what utility is measured against; that of step 0 when None.
        within: the utility's own rule. A utility that is not finite is outside every budget.

    Raises:
        ValueError: there are no evaluations.
    """
    if not evaluations:
        raise ValueError("A run must have at least the evaluation of step 0 to be judged.")
    start = evaluations[0].utility if base is None else base
    inside = [_is_inside(point, start, utility_factor, within) for point in evaluations]
    reached = next((e.step for e, kept in zip(evaluations, inside, strict=True) if kept and e.score >= target), None)
    lost = next((index for index, kept in enumerate(inside) if not kept), None)
    recovered = lost is not None and any(inside[lost:])
    kept_points = [e for e, kept in zip(evaluations, inside, strict=True) if kept] or [evaluations[0]]
    best = max(kept_points, key=lambda point: point.score)
    if reached is not None:
        outcome = Outcome.BROKEN
    elif not inside[-1]:
        outcome = Outcome.COLLAPSE
    else:
        outcome = Outcome.STALL
    return Judgement(outcome, reached, best, None if lost is None else evaluations[lost].step, recovered)


def should_stop(
    evaluations: Sequence[Evaluation],
    *,
    target: float,
    utility_factor: float,
    stop: StopRule,
    base: float | None = None,
    within: Within = ratio_within,
    ruined: Callable[[float, float], bool] = never_ruined,
) -> StopReason | None:
    """Whether the run is decided at its latest evaluation; other arguments as in `classify_outcome`.

    Args:
        stop: see `StopRule`. Where it lets a run go on that has lost its utility, the run may regain it.
        ruined: (utility at the start, utility now) -> whether no training brings it back; each kind of utility has its
            own.
    """
    latest, start = evaluations[-1], evaluations[0].utility if base is None else base
    inside = _is_inside(latest, start, utility_factor, within)
    if inside and latest.score >= target:
        return StopReason.TARGET
    if stop == "paper" and not inside:
        return StopReason.DIVERGED
    if stop == "ruin" and ruined(start, latest.utility):
        return StopReason.RUINED
    return None


def _is_inside(point: Evaluation, start: float, budget: float, within: Within) -> bool:
    return math.isfinite(point.utility) and within(start, point.utility, budget)
