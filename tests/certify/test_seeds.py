"""More seeds only where the interval straddles the target, look by look, and never beyond the last look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import synthetic
from test_verdict import grouped, stall

from specdef.attacks.base import Attack
from specdef.certify.effort import QUICK, STANDARD, Effort
from specdef.certify.findings import Findings
from specdef.certify.result import StoredCell
from specdef.certify.seeds import other_seeds
from specdef.certify.threat_model import follow


def asked(effort: Effort, first: StoredCell, score: Callable[[int], float]) -> list[list[int]]:
    """The seeds that are asked for, batch by batch, where each seed's run has a score."""
    findings = Findings(results={"T1": [first]})
    plan = other_seeds(synthetic.study(effort=effort), findings, "T1", _attack)
    batches: list[list[int]] = []

    def run(attacks: Any) -> list[StoredCell]:
        batches.append([attack.recipe.seed for attack in attacks])
        return [grouped(score(seed), seed) for seed in batches[-1]]

    for found in follow(plan, run):
        findings.results["T1"].extend(found)
    return batches


def _attack(attack: Attack) -> Any:
    return attack


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (lambda seed: 0.9, [[1, 2]]),
        (lambda seed: 0.45, [[1, 2]]),
        (lambda seed: 0.6, [[1, 2], [3, 4], [5, 6, 7]]),
        (lambda seed: 0.6 if seed < 3 else 0.8, [[1, 2], [3, 4], [5, 6, 7]]),
    ],
)
def test_the_score_decides_how_many_seeds(score: Callable[[int], float], expected: list[list[int]]) -> None:
    assert asked(STANDARD, grouped(score(0), 0), score) == expected


def test_quick_asks_for_two_more_and_no_more() -> None:
    assert asked(QUICK, grouped(0.6, 0), lambda seed: 0.6) == [[1, 2]]


def test_an_attack_that_got_nowhere_and_a_score_that_says_nothing_get_no_more() -> None:
    assert asked(STANDARD, grouped(0.3, 0), lambda seed: 0.3) == []
    findings = Findings(results={"T1": [stall(0.58, seed=seed) for seed in range(3)]})
    assert list(other_seeds(synthetic.study(effort=STANDARD), findings, "T1", _attack)) == []


def test_a_threat_model_without_any_cell_gets_no_seeds() -> None:
    assert list(other_seeds(synthetic.study(effort=STANDARD), Findings(), "T1", _attack)) == []
