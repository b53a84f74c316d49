"""Scores of labels against their definitions, their standard errors against the bootstrap's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from specdef.certify.statistics import score_interval
from specdef.tasks.confusion import SCORERS, label_score
from specdef.tasks.labelled import balanced


def drawn(size: int, labels: int, seed: int, right: float = 0.7) -> tuple[list[int], list[int]]:
    """Labels found and wanted, the larger ones rarer."""
    rng = np.random.default_rng(seed)
    wanted = rng.choice(labels, size, p=np.arange(labels, 0, -1) / sum(range(labels + 1)))
    found = np.where(rng.random(size) < right, wanted, rng.integers(labels, size=size))
    return found.tolist(), wanted.tolist()


def f1(found: Sequence[int], wanted: Sequence[int], label: int) -> float:
    pairs = list(zip(found, wanted, strict=True))
    hit = sum(f == w == label for f, w in pairs)
    return 2 * hit / (2 * hit + sum((f == label) != (w == label) for f, w in pairs))


def correlation(found: Sequence[int], wanted: Sequence[int]) -> float:
    """Matthews' is Pearson's for two labels."""
    return float(np.corrcoef(found, wanted)[0, 1])


def gorodkin(found: Sequence[int], wanted: Sequence[int]) -> float:
    one, other = (np.eye(max(*found, *wanted) + 1)[list(labels)] for labels in (found, wanted))
    one, other = one - one.mean(0), other - other.mean(0)
    return float((one * other).sum() / math.sqrt((one**2).sum() * (other**2).sum()))


@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_the_definitions(seed: int) -> None:
    found, wanted = drawn(60, 2, seed)
    values = {name: label_score(scorer.measure, found, wanted, range(60)).value for name, scorer in SCORERS.items()}
    assert values["accuracy"] == pytest.approx(balanced(found, wanted))
    assert values["f1"] == pytest.approx(f1(found, wanted, 1))
    assert values["matthews"] == pytest.approx(correlation(found, wanted))
    found, wanted = drawn(60, 3, seed)
    values = {name: label_score(scorer.measure, found, wanted, range(60)).value for name, scorer in SCORERS.items()}
    assert values["accuracy"] == pytest.approx(balanced(found, wanted))
    assert values["f1"] == pytest.approx(sum(f1(found, wanted, label) for label in range(3)) / 3)
    assert values["matthews"] == pytest.approx(gorodkin(found, wanted))


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("name", SCORERS)
def test_the_error_is_the_bootstraps(name: str, labels: int) -> None:
    found, wanted = drawn(400, labels, 5)
    score = label_score(SCORERS[name].measure, found, wanted, range(400))
    rng = np.random.default_rng(0)
    again = []
    for _ in range(400):
        chosen = rng.integers(400, size=400)
        again.append(
            label_score(SCORERS[name].measure, *([rows[at] for at in chosen] for rows in (found, wanted)), chosen).value
        )
    assert score.error == pytest.approx(float(np.std(again)), rel=0.12)
    assert score.by_group is not None
    assert float(np.mean(score.by_group)) == pytest.approx(score.value, abs=1e-4)


@pytest.mark.parametrize("name", SCORERS)
def test_rows_of_one_group_are_one_piece_of_evidence(name: str) -> None:
    found, wanted = drawn(200, 2, 1)
    apart = label_score(SCORERS[name].measure, found, wanted, range(200))
    twice = label_score(SCORERS[name].measure, found * 4, wanted * 4, [*range(200)] * 4)
    assert twice.value == pytest.approx(apart.value)
    assert twice.error == pytest.approx(apart.error, rel=1e-3)


@pytest.mark.parametrize("name", SCORERS)
def test_who_does_not_read_scores_chance_at_most(name: str) -> None:
    _, wanted = drawn(5000, 2, 2)
    counts = [wanted.count(0), wanted.count(1)]
    chance = SCORERS[name].chance(counts)
    rng = np.random.default_rng(3)
    guesses = [(rng.random(5000) < share).astype(int).tolist() for share in (0.0, 0.3, 0.5, 1.0)]
    scores = [label_score(SCORERS[name].measure, guess, wanted, range(5000)).value for guess in guesses]
    assert max(scores) <= chance + 0.03
    assert max(scores) == pytest.approx(chance, abs=0.03), "and someone reaches it"


def test_chance_of_f1_with_more_labels_is_one_in_their_number() -> None:
    _, wanted = drawn(20000, 3, 4)
    guess = np.random.default_rng(5).permutation(wanted).tolist()
    found = label_score(SCORERS["f1"].measure, guess, wanted, range(20000)).value
    assert found == pytest.approx(SCORERS["f1"].chance([wanted.count(label) for label in range(3)]), abs=0.02)


def test_matthews_is_never_below_zero_and_zero_where_one_side_is_constant() -> None:
    reverse = label_score(SCORERS["matthews"].measure, [1, 1, 0, 1], [0, 0, 1, 1], range(4))
    assert reverse.value == 0.0
    assert reverse.by_group is not None
    assert sum(reverse.by_group) == pytest.approx(0.0, abs=1e-3)
    assert label_score(SCORERS["matthews"].measure, [1, 1, 1], [0, 1, 1], range(3)).value == 0.0


def test_a_label_that_nobody_asked_for_is_a_wrong_answer() -> None:
    assert label_score(SCORERS["f1"].measure, [2, 1], [0, 1], range(2)).value == 1.0, "of label 1 alone"
    assert label_score(SCORERS["accuracy"].measure, [2, 1], [0, 1], range(2)).value == 0.5


@pytest.mark.parametrize("name", SCORERS)
def test_an_interval_over_seeds_is_made_of_them(name: str) -> None:
    """What a group adds may lie outside [0, 1]; the interval does not."""
    scores = [label_score(SCORERS[name].measure, *drawn(200, 2, seed), range(200)) for seed in range(3)]
    found = score_interval(scores)
    assert found is not None
    assert 0 < found.low < float(np.mean([score.value for score in scores])) < found.high < 1
    nothing = score_interval([label_score(SCORERS[name].measure, [1, 0], [0, 1], range(2))])
    assert nothing is not None
    assert 0 <= nothing.low <= nothing.high <= 1
    everything = score_interval([label_score(SCORERS[name].measure, [0, 1] * 9, [0, 1] * 9, range(18))])
    assert everything is not None
    assert everything.high == pytest.approx(1)
