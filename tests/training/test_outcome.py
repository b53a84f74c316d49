"""Outcomes: score and utility at the same evaluation, or it does not count."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from specdef.tasks.utilities.accuracy import Accuracy
from specdef.tasks.utilities.perplexity import Perplexity
from specdef.training.outcome import (
    Evaluation,
    Outcome,
    StopReason,
    StopRule,
    classify_outcome,
    evaluation_rows,
    never_ruined,
    should_stop,
    stop_rule,
)

RULE = {"target": 0.6, "utility_factor": 2.0}
RULES = get_args(StopRule)


def points(*pairs: tuple[float, float]) -> list[Evaluation]:
    return [Evaluation(10 * index, score, utility) for index, (score, utility) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("run", "outcome", "step"),
    [
        (points((0.25, 10), (0.7, 12)), Outcome.BROKEN, 10),
        (points((0.25, 10), (0.7, 20)), Outcome.BROKEN, 10),
        (points((0.25, 10), (0.7, 20.1)), Outcome.COLLAPSE, None),
        (points((0.25, 10), (0.9, math.inf)), Outcome.COLLAPSE, None),
        (points((0.25, 10), (0.9, math.nan)), Outcome.COLLAPSE, None),
        (points((0.25, 10), (0.5, 11)), Outcome.STALL, None),
        (points((0.25, 10), (0.7, 99), (0.65, 15)), Outcome.BROKEN, 20),
        (points((0.25, 10), (0.7, 99), (0.55, 15)), Outcome.STALL, None),
    ],
)
def test_the_target_counts_only_where_utility_is_kept(
    run: list[Evaluation], outcome: Outcome, step: int | None
) -> None:
    found = classify_outcome(run, **RULE)
    assert (found.outcome, found.step) == (outcome, step)


def test_score_and_utility_from_different_evaluations_never_add_up_to_broken() -> None:
    """The variant that takes each at its best would call this run broken."""
    run = points((0.25, 10), (0.9, 50), (0.3, 12))
    assert max(p.score for p in run) >= 0.6
    assert min(p.utility for p in run[1:]) <= 20
    assert classify_outcome(run, **RULE).outcome is Outcome.STALL


def test_divergence_and_recovery_are_recorded() -> None:
    found = classify_outcome(points((0.25, 10), (0.4, 99), (0.5, math.inf), (0.5, 19)), **RULE)
    assert (found.diverged_at, found.recovered, found.best.step) == (10, True, 30)
    assert not classify_outcome(points((0.25, 10), (0.4, 99)), **RULE).recovered


def test_the_best_score_is_read_inside_the_budget_only() -> None:
    assert classify_outcome(points((0.25, 10), (0.4, 15), (0.9, 99)), **RULE).best.score == 0.4


def test_runs_go_on_after_divergence_unless_the_papers_rule_is_asked_for() -> None:
    run = points((0.25, 10), (0.3, 99))
    assert should_stop(run, stop="budget", **RULE) is None
    assert should_stop(run, stop="paper", **RULE) is StopReason.DIVERGED
    assert should_stop(points((0.25, 10), (0.6, 20)), stop="budget", **RULE) is StopReason.TARGET


def test_a_run_beyond_repair_ends_where_that_is_asked_for() -> None:
    ruined = Perplexity().ruined
    lost, beyond = points((0.25, 10), (0.3, 9_999)), points((0.25, 10), (0.3, 10_001))
    assert [should_stop(lost, stop=rule, ruined=ruined, **RULE) for rule in RULES] == [None, None, StopReason.DIVERGED]
    assert [should_stop(beyond, stop=rule, ruined=ruined, **RULE) for rule in RULES] == [
        None,
        StopReason.RUINED,
        StopReason.DIVERGED,
    ]
    assert should_stop(beyond, stop="ruin", ruined=ruined, base=11.0, **RULE) is None, "measured against the base"
    assert should_stop(points((0.25, 10), (0.3, math.nan)), stop="ruin", ruined=ruined, **RULE) is StopReason.RUINED


def test_an_accuracy_is_never_beyond_repair() -> None:
    assert not Accuracy().ruined(0.9, 0.0)
    assert Accuracy().ruined(0.9, math.nan)


def test_no_evaluation_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="step 0"):
        classify_outcome([], **RULE)


def test_a_score_at_the_target_has_reached_it() -> None:
    run = points((0.25, 10), (0.6, 12))
    assert classify_outcome(run, **RULE).step == 10
    assert should_stop(run, stop="budget", **RULE) is StopReason.TARGET


def test_utility_is_measured_against_a_given_base() -> None:
    """An attack that changes the function is judged by the undefended model's utility, not by its own start."""
    run = points((0.25, 10), (0.7, 15))
    assert classify_outcome(run, **RULE).outcome is Outcome.BROKEN
    assert classify_outcome(run, base=7.0, **RULE).outcome is Outcome.COLLAPSE
    assert classify_outcome(run, base=7.0, **RULE).best == run[0], "nothing is inside the budget but what it began as"
    assert should_stop(run, stop="budget", **RULE) is StopReason.TARGET
    assert should_stop(run, stop="budget", base=7.0, **RULE) is None
    assert should_stop(run, stop="paper", base=7.0, **RULE) is StopReason.DIVERGED


def test_only_the_latest_evaluation_ends_a_run_and_only_inside_the_budget() -> None:
    assert should_stop(points((0.25, 10), (0.7, 12), (0.5, 12)), stop="budget", **RULE) is None
    assert should_stop(points((0.25, 10), (0.7, 99)), stop="budget", **RULE) is None
    assert should_stop(points((0.25, 10), (0.5, 99), (0.5, 12)), stop="paper", **RULE) is None


def test_numbers_that_are_not_finite_have_one_spelling() -> None:
    for value in (math.nan, math.inf, -math.inf):
        assert Evaluation(0, 0.5, value).utility == math.inf
        assert Evaluation(0, 0.5, 10.0, value).loss is None
    assert Evaluation(0, 0.5, 10.0, 2.5) == Evaluation(0, 0.5, 10.0, loss=2.5)
    assert Evaluation(0, 0.5, 10.0, 2.5).loss == 2.5


def test_a_run_that_was_outside_the_budget_from_the_start_is_read_at_its_start() -> None:
    """Measured against another model's utility, step 0 itself may lie outside."""
    found = classify_outcome(points((0.25, 30), (0.9, 40)), base=10.0, **RULE)
    assert (found.outcome, found.step, found.best.step) == (Outcome.COLLAPSE, None, 0)


def test_without_an_evaluation_there_is_nothing_to_judge() -> None:
    with pytest.raises(ValueError, match=r"^A run must have at least the evaluation of step 0 to be judged\.$"):
        classify_outcome([], **RULE)


def test_rows_for_tables() -> None:
    run = [Evaluation(0, 0.25, 10.0, None), Evaluation(10, 0.7, 12.0, 1.5, (1.0, 0.4))]
    assert evaluation_rows(run) == [
        {"step": 0, "score": 0.25, "utility": 10.0, "loss": None},
        {"step": 10, "score": 0.7, "utility": 12.0, "loss": 1.5},
    ]


def test_a_yes_or_no_names_a_rule() -> None:
    assert (stop_rule(True), stop_rule(False)) == ("paper", "budget")


def test_a_utility_that_can_always_come_back_is_never_ruined() -> None:
    """The rule where none is given: a run goes on, however much was lost."""
    assert not never_ruined(1.0, 1e9)
    lost = points((0.25, 10), (0.3, 1e9))
    assert should_stop(lost, **RULE, stop="ruin") is None
