"""What stages found: which attack was worst, when trying more is useless, and what is kept on record."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_verdict import broken, collapse, crashed, invalid, stall

from specdef.certify.findings import UNCOUNTED, UNLOCKED, Findings, by_attack, is_slowed, scores_of, worst_case
from specdef.certify.result import StoredCell
from specdef.certify.verdict import judge_threat
from specdef.certify.verdict_kinds import Broken


def test_no_attack_is_no_worst_case() -> None:
    assert worst_case([]) == []
    assert worst_case([invalid(), crashed()]) == []
    assert Findings().best("T0") is None


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ([broken(50)], [stall(0.9, lr=1e-5)]),
        ([broken(20), broken(20, seed=1)], [broken(30, lr=1e-5)]),
        ([broken(20, 0.8)], [broken(20, 0.7, lr=1e-5)]),
        ([stall(0.5)], [stall(0.3, lr=1e-5, seed=seed) for seed in range(3)]),
        ([stall(0.5, step=100)], [stall(0.5, lr=1e-5, step=60, seed=seed) for seed in range(3)]),
        ([stall(0.5), broken(60, seed=1)], [collapse(0.59, lr=1e-5)]),
    ],
)
def test_the_worse_attack_comes_first_whatever_the_order(worse: list[StoredCell], better: list[StoredCell]) -> None:
    for cells in ([*worse, *better], [*better, *worse]):
        assert {cell.key for cell in worst_case(cells)} == {cell.key for cell in worse}


def test_cells_that_differ_in_their_seed_alone_repeat_one_attack() -> None:
    first, second, other = stall(0.5), stall(0.5, seed=1), stall(0.5, lr=1e-5)
    turned = replace(second, config=dict(reversed(second.config.items())) | {"task": "facts"})
    first = replace(first, config={"task": "facts", **first.config})
    assert by_attack([first, turned, other]) == [[first, turned], [other]]
    assert by_attack([first, invalid(), first]) == [[first]]


def test_the_best_of_several_threat_models_is_one_that_reached_the_target() -> None:
    lucky = [stall(0.5), broken(20, seed=1)]
    found = Findings(results={"T0": [stall(0.9, lr=1e-3)], "T1": lucky})
    assert found.best("T0", "T1") == lucky[1]
    assert found.best("T0") == found.results["T0"][0]
    assert found.best("T7") is None


@pytest.mark.parametrize(
    ("cells", "unlocked", "is_open"),
    [
        ([], [20], False),
        ([stall(0.5)], [20], False),
        ([broken(20)], [20], True),
        ([broken(20)], [], False),
        ([broken(39)], [20], True),
        ([broken(40)], [20], False),
        ([broken(40), broken(80, seed=1), broken(80, seed=2)], [30, 30, 30], False),
        ([broken(50), broken(50, seed=1), broken(50, seed=2)], [30, 20, 20], False),
        ([broken(50), broken(30, seed=1), broken(30, seed=2)], [20, 30, 30], True),
    ],
)
def test_a_threat_model_is_open_where_its_verdict_is_broken(
    cells: list[StoredCell], unlocked: list[int], is_open: bool
) -> None:
    """A search that stops at another rule would leave attacks out and still say slowed."""
    undefended = [broken(steps, seed=seed) for seed, steps in enumerate(unlocked)]
    found = Findings(results={"T1": cells, UNLOCKED: undefended})
    assert found.is_open("T1", eval_every=10) is is_open
    mean = judge_threat(undefended, unlocked_steps=None, reference=None).steps
    verdict = judge_threat(cells, unlocked_steps=mean, reference=None, eval_every=10).verdict
    assert (mean is not None and isinstance(verdict, Broken)) is is_open


def test_slowed_starts_at_one_and_a_half_times_beyond_the_evaluations() -> None:
    assert is_slowed(30, 20, 0)
    assert not is_slowed(29, 20, 0)
    assert not is_slowed(39, 20, 10)
    assert is_slowed(40, 20, 10)


def test_what_is_dropped_stays_on_record_and_what_is_left_out_is_noted() -> None:
    first, second, third = stall(0.5), stall(0.4, lr=1e-5), stall(0.3, lr=1e-6)
    found = Findings(results={"T3": [first, second, third]})
    found.drop("T3", {second.key})
    found.drop("T3", {third.key})
    assert found.results == {"T3": [first], UNCOUNTED: [second, third]}
    found.drop("T4", {first.key})
    assert found.results["T4"] == []
    found.skip("T3", "this")
    found.skip("T3", "that")
    assert found.not_tried == {"T3": ["this", "that"]}


def test_the_scores_of_a_group_are_the_best_of_each_run() -> None:
    cells = [stall(0.5), stall(0.4, seed=1)]
    assert [score.value for score in scores_of(cells)] == [0.5, 0.4]
