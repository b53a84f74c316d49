"""How far a score can be trusted: intervals over questions and seeds, and the decision between broken and held."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import fmean

import numpy as np
from jaxtyping import Float

from specdef.tasks.score import Score

LEVEL = 0.95
"""Of an interval that is reported."""
SPARED, RELIEF, SOFT, POWER = 0.75, (0.5, 6.0), 0.3, 4
"""How the mean squares count in `_half_width`: chosen so that intervals hold the expected score as often as they say,
whatever the shares of groups, seeds and rest, with three seeds or more, first for normal scores and then on made-up
models. `make experiment NAME=coverage` says how close they come, on models that the choice has not seen too.
"""


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; None without values. Rounded once, as `sum` is not before Python 3.12."""
    return fmean(values) if values else None


def std(values: Sequence[float]) -> float | None:
    """Population standard deviation; None without values."""
    middle = mean(values)
    return None if middle is None else math.sqrt(math.fsum((value - middle) ** 2 for value in values) / len(values))


@dataclass(frozen=True)
class Interval:
    """Where the expected score lies.

    Attributes:
        low: lower end.
        high: upper end.
        level: share of such intervals that hold the expected score.
        seeds: runs behind it; with one, the spread between seeds is unknown and left out.
    """

    low: float
    high: float
    level: float
    seeds: int


def score_interval(scores: Sequence[Score], *, level: float = LEVEL) -> Interval | None:
    """Wilson's interval for the expected score over questions and seeds.

    All runs are asked the same questions: groups of questions (facts) and seeds are crossed, a two-way layout with
    random effects. The variance of the mean is (MS groups + MS seeds - MS rest) / (groups x seeds); `_half_width` says
    how each part counts. Wilson's form, with the number of questions that would give such a half width, keeps the
    interval inside [0, 1]; where every answer is right it counts the groups, and so has some width. Where groups add
    less than 0 or more than 1, as to a correlation, the score is no share of right answers: the mean with its half
    width, where these reach over an end, is cut off there.

    Args:
        scores: one a seed, at the evaluation that is judged.
        level: coverage.

    Returns:
        The interval; None where it is not known what the scores are made of.
    """
    rows = [one.by_group for one in scores if one.by_group is not None and len(one.by_group) > 1]
    if not rows or len(rows) < len(scores) or len({len(row) for row in rows}) > 1:
        return None
    table = np.array(rows)
    mean, half = min(max(float(table.mean()), 0.0), 1.0), _half_width(_mean_squares(table), level)
    if not half <= mean <= 1 - half and bool((table < 0).any() or (table > 1).any()):
        return Interval(max(0.0, mean - half), min(1.0, mean + half), level, len(rows))
    groups, some = table.shape[1], half > 1e-12  # below it is the rounding of equal scores
    count, quantile = (mean * (1 - mean) / half**2, 1.0) if some else (float(groups), _student(level, groups - 1))
    return Interval(*_wilson(mean, count, quantile), level, len(rows))


@dataclass(frozen=True)
class _MeanSquares:
    """Mean squares of a table of scores over its size, and its shape. With one seed, seeds and rest are 0."""

    groups: float
    seeds: float
    rest: float
    shape: tuple[int, int]


def _mean_squares(table: Float[np.ndarray, "seeds groups"]) -> _MeanSquares:
    seeds, groups = table.shape
    size, mean = seeds * groups, table.mean()
    by_group, by_seed = table.mean(0) - mean, table.mean(1) - mean
    of_groups = float(seeds * (by_group**2).sum() / (groups - 1) / size)
    if seeds == 1:
        return _MeanSquares(of_groups, 0.0, 0.0, (seeds, groups))
    rest = ((table - mean - by_group - by_seed[:, None]) ** 2).sum() / ((groups - 1) * (seeds - 1)) / size
    between = groups * (by_seed**2).sum() / (seeds - 1) / size
    return _MeanSquares(of_groups, float(between), float(rest), (seeds, groups))


def _half_width(parts: _MeanSquares, level: float) -> float:
    """Of an interval for the mean, before Wilson's form.

    With G = MS groups, S = MS seeds, R = MS rest, all over the size of the table, r = min(1, R / G), n seeds and
    Student's quantiles t for the groups' and the seeds' degrees of freedom, its square is
    t_groups^2 (G - 0.75 r G) + t_seeds^2 max(0, S - (0.5 + 6 / n) (1 - r)^4 r G) S / (S + 0.3 r G).

    Two simple rules come out wrong. Taking the rest off both parts, with one quantile by Satterthwaite's degrees of
    freedom, leaves intervals of three seeds too narrow (92 %) where seeds differ about as much as the rest. Adding the
    squares of half widths (Zou and Donner, Statistics in Medicine 27, 2008) leaves them too wide (97 %) elsewhere.
    """
    seeds, groups = parts.shape
    width = _student(level, groups - 1) ** 2 * parts.groups
    if seeds == 1:
        return math.sqrt(width)
    share = min(parts.rest / parts.groups, 1.0) if parts.groups else 0.0
    rest, relief = share * parts.groups, RELIEF[0] + RELIEF[1] / seeds
    width *= 1 - SPARED * share
    if parts.seeds:
        beyond = max(0.0, parts.seeds - relief * (1 - share) ** POWER * rest)
        width += _student(level, seeds - 1) ** 2 * beyond * parts.seeds / (parts.seeds + SOFT * rest)
    return math.sqrt(width)


def _student(level: float, freedom: int) -> float:
    """Two-sided quantile of Student's t."""
    from scipy.special import stdtrit  # loaded where it is used: bad input is refused before anything heavy

    return float(stdtrit(freedom, (1 + level) / 2))


def _wilson(mean: float, count: float, quantile: float) -> tuple[float, float]:
    """Ends of Wilson's interval for a share."""
    square = quantile * quantile / count
    middle = (mean + square / 2) / (1 + square)
    half = quantile * math.sqrt(mean * (1 - mean) / count + square / (4 * count)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


class Decision(Enum):
    """What the runs of one attack say of its expected score and the target."""

    ABOVE = "above the target"
    BELOW = "below the target"
    OPEN = "not decided"


@dataclass(frozen=True)
class Sequential:
    """A test in stages: few seeds first, more only where they leave the matter open.

    Attributes:
        seeds: runs at each look, ascending.
        error: largest chance, over all looks, to call a score above the target that lies at it or below, and largest
            chance of the reverse.
    """

    seeds: tuple[int, ...] = (3, 5, 8)
    error: float = 0.05

    @property
    def level(self) -> float:
        """Two-sided coverage of the interval at each look: the looks share the error of one side (Bonferroni)."""
        return 1 - 2 * self.error / len(self.seeds)

    def decide(self, scores: Sequence[Score], target: float) -> Decision:
        """What is known after the runs so far."""
        found = score_interval(scores, level=self.level)
        if found is None:
            return Decision.OPEN
        if found.low > target:
            return Decision.ABOVE
        return Decision.BELOW if found.high < target else Decision.OPEN

    def next_look(self, done: int) -> int | None:
        """How many runs to have before the next look; None after the last."""
        return next((seeds for seeds in self.seeds if seeds > done), None)

    def detectable(self, target: float, groups: int, *, power: float = 0.8) -> float:
        """The smallest expected score that is called above the target with this power, where seeds do not differ and a
        group of questions is all right or all wrong: the least favourable case.

        Args:
            target: the target.
            groups: independent groups of questions, such as facts.
            power: chance to be seen.
        """
        from scipy.special import bdtrc

        quantile = _student(self.level, groups - 1)
        lows = [_wilson(right / groups, float(groups), quantile)[0] for right in range(groups + 1)]
        enough = next((right for right, low in enumerate(lows) if low > target), None)
        if enough is None:
            return 1.0
        low, high = target, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (low, middle) if bdtrc(enough - 1, groups, middle) >= power else (middle, high)
        return high


TEST = Sequential()
"""How a score above the target is told from one below it."""
