"""Intervals hold what they say, and the decision errs no more often than it says, on made-up models."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm
from scipy.stats import t as student

from specdef.certify.statistics import Decision, Sequential, _mean_squares, _wilson, score_interval
from specdef.tasks.confusion import SCORERS, label_score
from specdef.tasks.score import Score, share

GROUPS, WORDINGS = 66, 6


def runs(draw: np.random.Generator, mean: float, seeds: int, *, fact: float, seed: float) -> list[Score]:
    """Runs of one attack: facts that are easier or harder for all seeds alike, seeds that fare better or worse."""
    facts, luck = draw.normal(0, fact, GROUPS), draw.normal(0, seed, seeds)
    found = []
    for each in luck:
        chance = np.clip(mean + facts + each + draw.normal(0, 0.1, GROUPS), 0, 1)
        right = draw.random((GROUPS, WORDINGS)) < chance[:, None]
        found.append(Score(float(right.mean()), tuple(right.mean(1))))
    return found


def truth(mean: float, *, fact: float, seed: float) -> float:
    """The expected score, clipping included."""
    draw = np.random.default_rng(99)
    spread = (fact**2 + seed**2 + 0.01) ** 0.5
    return float(np.clip(draw.normal(mean, spread, 1_000_000), 0, 1).mean())


@pytest.mark.parametrize(
    ("seeds", "mean", "fact", "seed"),
    [(1, 0.6, 0.2, 0.0), (3, 0.6, 0.2, 0.05), (3, 0.3, 0.2, 0.1), (5, 0.6, 0.2, 0.05), (5, 0.8, 0.15, 0.03)],
)
def test_intervals_hold_the_expected_score_as_often_as_they_say(
    seeds: int, mean: float, fact: float, seed: float
) -> None:
    draw, expected, count = np.random.default_rng(seeds), truth(mean, fact=fact, seed=seed), 1000
    found = [score_interval(runs(draw, mean, seeds, fact=fact, seed=seed)) for _ in range(count)]
    covered = sum(one is not None and one.low <= expected <= one.high for one in found) / count
    assert covered == pytest.approx(0.95, abs=0.025)


def test_pretending_that_questions_are_independent_covers_too_little() -> None:
    """The broken variant: six wordings of a fact taken for six facts."""
    draw, expected, count = np.random.default_rng(0), truth(0.6, fact=0.3, seed=0.0), 400
    covered = 0
    for _ in range(count):
        (one,) = runs(draw, 0.6, 1, fact=0.3, seed=0.0)
        assert one.by_group is not None
        right = [float(index < round(share * WORDINGS)) for share in one.by_group for index in range(WORDINGS)]
        found = score_interval([Score(one.value, tuple(right))])
        assert found is not None
        covered += found.low <= expected <= found.high
    assert covered / count < 0.88


@pytest.mark.parametrize("above", [False, True])
def test_the_sequential_test_errs_no_more_often_than_it_says(above: bool) -> None:
    """Expected score at the target: called above, or below, in at most 5 % of cases each, over all three looks."""
    test, draw, target, count = Sequential(), np.random.default_rng(7), truth(0.6, fact=0.2, seed=0.05), 1000
    wrong = 0
    for _ in range(count):
        scores = runs(draw, 0.6, test.seeds[-1], fact=0.2, seed=0.05)
        for look in test.seeds:
            decision = test.decide(scores[:look], target)
            if decision is not Decision.OPEN:
                wrong += (decision is Decision.ABOVE) is above
                break
    assert wrong / count <= 0.06


def test_clear_scores_are_decided_at_the_first_look() -> None:
    test, draw = Sequential(), np.random.default_rng(3)
    low, high = (runs(draw, mean, 3, fact=0.1, seed=0.01) for mean in (0.3, 0.85))
    assert (test.decide(low, 0.6), test.decide(high, 0.6)) == (Decision.BELOW, Decision.ABOVE)
    assert test.decide(runs(draw, 0.6, 3, fact=0.1, seed=0.01), 0.6) is Decision.OPEN
    assert [test.next_look(done) for done in (0, 1, 3, 5, 8)] == [3, 3, 5, 8, None]


def test_all_right_is_not_certain_and_nothing_known_is_said() -> None:
    perfect = score_interval([Score(1.0, (1.0,) * 66)] * 3)
    assert perfect is not None
    assert 0.93 < perfect.low < 1.0 == perfect.high
    assert score_interval([Score(0.5)]) is None
    assert score_interval([]) is None
    assert score_interval([Score(0.5, (1.0, 0.0)), Score(0.5)]) is None
    assert Sequential().decide([Score(0.9)], 0.6) is Decision.OPEN


def test_what_would_have_been_seen() -> None:
    """The score named is called above the target in about four of five cases, by one that is simulated."""
    test, draw = Sequential(), np.random.default_rng(5)
    score = test.detectable(0.6, GROUPS)
    assert 0.7 < score < 0.85
    seen = 0
    for _ in range(400):
        right = draw.random(GROUPS) < score
        seen += test.decide([Score(float(right.mean()), tuple(map(float, right)))] * 3, 0.6) is Decision.ABOVE
    assert seen / 400 == pytest.approx(0.8, abs=0.08)


@pytest.mark.parametrize("right", [0, 1, 20, 65, 66])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_ends_are_wilsons(right: int, level: float) -> None:
    """Against scipy's, with the normal quantile."""
    expected = binomtest(right, GROUPS).proportion_ci(level, method="wilson")
    found = _wilson(right / GROUPS, float(GROUPS), float(norm.ppf((1 + level) / 2)))
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_of_one_run_the_error_is_that_of_its_groups() -> None:
    """Shares of 0 and 1: Wilson's interval with one question a group, and Student's t for the normal quantile."""
    shares = (1.0,) * 40 + (0.0,) * 26
    found = score_interval([Score(40 / 66, shares)])
    assert found is not None
    mean, variance = float(np.mean(shares)), float(np.var(shares, ddof=1)) / GROUPS
    expected = _wilson(mean, mean * (1 - mean) / variance, float(student.ppf(0.975, GROUPS - 1)))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)
    assert (found.level, found.seeds) == (0.95, 1)


@pytest.mark.parametrize("luck", [0.0, 0.2])
def test_mean_squares_are_those_of_a_two_way_layout(luck: float) -> None:
    """Against sums written out."""
    table = two_way(luck)
    (seeds, groups), mean = table.shape, table.mean()
    of_groups = sum(seeds * (table[:, g].mean() - mean) ** 2 for g in range(groups)) / (groups - 1)
    of_seeds = sum(groups * (table[s].mean() - mean) ** 2 for s in range(seeds)) / (seeds - 1)
    rest = 0.0
    for s in range(seeds):
        for g in range(groups):
            rest += (table[s, g] - table[s].mean() - table[:, g].mean() + mean) ** 2
    rest /= (groups - 1) * (seeds - 1)
    found = _mean_squares(table)
    expected = [part / (seeds * groups) for part in (of_groups, of_seeds, rest)]
    assert [found.groups, found.seeds, found.rest] == pytest.approx(expected, rel=1e-9)
    assert found.shape == (seeds, groups)


def test_one_seed_says_nothing_of_seeds_and_rest() -> None:
    found = _mean_squares(two_way(0.2)[:1])
    assert (found.seeds, found.rest) == (0.0, 0.0)


def two_way(luck: float) -> np.ndarray:
    """Three seeds, ten groups; luck says how far seeds lie apart."""
    draw = np.random.default_rng(4)
    return np.clip(draw.normal(0.5, 0.2, (3, 10)) + luck * np.array([[1], [0], [-1]]), 0, 1)


@pytest.mark.parametrize("luck", [0.0, 0.2])
def test_the_interval_is_wilsons_with_the_half_width(luck: float) -> None:
    """The formula of `_half_width` written out."""
    table = two_way(luck)
    found, parts = score_interval([Score(float(row.mean()), tuple(row)) for row in table]), _mean_squares(table)
    of_groups, of_seeds, mean = parts.groups, parts.seeds, float(table.mean())
    rest = min(parts.rest, of_groups)
    beyond = max(0.0, of_seeds - (0.5 + 6 / 3) * (1 - rest / of_groups) ** 4 * rest)
    square = float(student.ppf(0.975, 9)) ** 2 * (of_groups - 0.75 * rest)
    square += float(student.ppf(0.975, 2)) ** 2 * beyond * of_seeds / (of_seeds + 0.3 * rest)
    ends = _wilson(mean, mean * (1 - mean) / square, 1.0)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(ends, rel=1e-12)


def test_groups_that_do_not_differ_leave_the_seeds_part() -> None:
    """Two seeds, every group alike: Student's interval with one degree of freedom, in Wilson's form."""
    found = score_interval([Score(0.3, (0.3,) * 10), Score(0.7, (0.7,) * 10)])
    assert found is not None
    assert (found.low, found.high) == pytest.approx(_wilson(0.5, 0.25 / 0.04, float(student.ppf(0.975, 1))))


def test_two_groups_are_enough_and_one_is_not() -> None:
    assert score_interval([Score(0.5, (1.0,))]) is None
    assert score_interval([Score(0.5, (1.0, 0.0))]) is not None
    assert score_interval([Score(0.5, (1.0, 0.0)), Score(0.5, (1.0, 0.0, 0.5))]) is None
    nothing = score_interval([Score(0.0, (0.0,) * 66)])
    assert nothing is not None
    assert (nothing.low, nothing.high) == (0.0, pytest.approx(_wilson(0.0, 66.0, float(student.ppf(0.975, 65)))[1]))


def test_what_is_seen_by_sums_over_the_binomial() -> None:
    test = Sequential()
    score = test.detectable(0.6, GROUPS)
    quantile = float(student.ppf((1 + test.level) / 2, GROUPS - 1))
    enough = min(right for right in range(GROUPS + 1) if _wilson(right / GROUPS, float(GROUPS), quantile)[0] > 0.6)
    assert binom.sf(enough - 1, GROUPS, score) == pytest.approx(0.8, abs=1e-6)
    assert test.detectable(0.99, 5) == 1.0, "five facts cannot show it"
    assert test.level == pytest.approx(1 - 2 * 0.05 / 3)


def test_a_decision_asks_more_than_an_interval_of_95_percent() -> None:
    """Three looks share the error: what 95 % excludes and the look's level does not is left open."""
    test = Sequential()
    scores = [Score(right / 66, (1.0,) * right + (0.0,) * (66 - right)) for right in range(67)]
    narrow, wide = ([score_interval([one], level=level) for one in scores] for level in (0.95, test.level))
    between = [
        one
        for one, close, far in zip(scores, narrow, wide, strict=True)
        if close is not None and far is not None and close.low > 0.6 >= far.low
    ]
    assert between
    assert {test.decide([one], 0.6) for one in between} == {Decision.OPEN}


def test_two_seeds_tell_how_seeds_differ() -> None:
    apart = [Score(0.3, (0.3,) * 30 + (0.32,) * 30), Score(0.7, (0.7,) * 30 + (0.72,) * 30)]
    both, one = score_interval(apart), score_interval(apart[:1])
    assert both is not None
    assert one is not None
    assert both.high - both.low > 3 * (one.high - one.low)


@pytest.mark.parametrize("groups", [5, 6, 7, 8, 9, 12])
@pytest.mark.parametrize("target", [0.1, 0.25, 0.4, 0.5, 0.6])
def test_few_facts_need_a_score_far_above_the_target(groups: int, target: float) -> None:
    """By sums over the binomial again: with few facts Student's t is far from the normal quantile."""
    test = Sequential()
    quantile = float(student.ppf((1 + test.level) / 2, groups - 1))
    lows = [_wilson(right / groups, float(groups), quantile)[0] for right in range(groups + 1)]
    enough = next((right for right, low in enumerate(lows) if low > target), None)
    score = test.detectable(target, groups)
    if enough is None:
        assert score == 1.0
    else:
        assert binom.sf(enough - 1, groups, score) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_where_every_fact_is_known_alike_the_interval_has_a_width(share: float) -> None:
    """The mean of 0.7, 66 times, is not 0.7 to the last bit: that is no spread."""
    found = score_interval([Score(share, (share,) * 66)] * 3)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(_wilson(share, 66.0, float(student.ppf(0.975, 65))))


def test_a_target_of_one_is_never_missed_by_a_perfect_score() -> None:
    perfect = [Score(1.0, (1.0,) * 66)] * 3
    assert Sequential().decide(perfect, 1.0) is Decision.OPEN


def test_a_correlation_at_nought_has_an_interval_around_it() -> None:
    """What rows add to a correlation has a spread where their mean is 0, or below it by a rounding."""
    draw, test = np.random.default_rng(0), Sequential()
    for _ in range(200):
        wanted = draw.integers(0, 2, 60)
        scores = [label_score(SCORERS["matthews"].measure, draw.permutation(wanted), wanted, range(60)) for _ in "123"]
        for some in (scores, scores[:1]):
            found = score_interval(some)
            assert found is not None
            assert 0.0 <= found.low <= np.mean([one.value for one in some]) + 1e-4
            assert found.low < found.high <= 0.7
            assert test.decide(some, 0.9) is Decision.BELOW


def test_no_row_that_adds_anything_is_an_interval_too() -> None:
    constant = label_score(SCORERS["matthews"].measure, [1] * 40, [0, 1] * 20, range(40))
    assert constant.value == 0.0
    found = score_interval([constant])
    assert found is not None
    assert found.low == 0.0 < found.high < 0.2


def test_groups_weigh_by_their_questions() -> None:
    """Twenty questions on one fact are wrong, one each on twenty others right: half of all."""
    found = share([False] * 20 + [True] * 20, ["one"] * 20 + list(range(20)))
    interval = score_interval([found])
    assert found.value == 0.5
    assert interval is not None
    assert interval.low < 0.5 < interval.high
    assert Sequential().decide([found], 0.6) is Decision.OPEN
