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
REST = 0.75
"""Share of the rest's mean square that is taken off that of seeds. Taking off all of it, as an estimate without bias
does, leaves intervals of three seeds too narrow where seeds differ about as much as the rest. This share is the largest
of four tried that kept 94 %, give or take the simulation, in every design of `make experiment NAME=coverage`: 93.7 to
97.3 %, too wide where seeds do not differ.
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
    random effects. Each part of the variance of the mean, MS groups / (groups x seeds) and (MS seeds - `REST` x MS
    rest) / (groups x seeds), counts with Student's quantile for its own degrees of freedom, and the squares of the two
    half widths are added (Zou and Donner, Statistics in Medicine 27, 2008); the seeds' part is never below zero.
    Wilson's form, with the effective number of questions p (1 - p) / variance, keeps the interval inside [0, 1] and of
    some width where every answer is right.

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
    mean, parts = float(table.mean()), _variances(table)
    variance = math.fsum(part for part, _ in parts)
    half = math.sqrt(math.fsum(part * _student(level, freedom) ** 2 for part, freedom in parts))
    quantile = half / math.sqrt(variance) if variance else _student(level, parts[0][1])
    effective = mean * (1 - mean) / variance if variance and 0 < mean < 1 else float(table.shape[1])
    return Interval(*_wilson(mean, effective, quantile), level, len(rows))


def _variances(table: Float[np.ndarray, "seeds groups"]) -> list[tuple[float, float]]:
    """Parts of the variance of a table's mean, each with its degrees of freedom: the groups', then the seeds'."""
    seeds, groups = table.shape
    size, mean = seeds * groups, table.mean()
    by_group, by_seed = table.mean(0) - mean, table.mean(1) - mean
    parts = [(float(seeds * (by_group**2).sum() / (groups - 1) / size), float(groups - 1))]
    if seeds > 1:
        rest = ((table - mean - by_group - by_seed[:, None]) ** 2).sum() / ((groups - 1) * (seeds - 1)) / size
        between = groups * (by_seed**2).sum() / (seeds - 1) / size
        if between > REST * rest:
            parts.append((float(between - REST * rest), float(seeds - 1)))
    return parts


def _student(level: float, freedom: float) -> float:
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

        quantile = _student(self.level, float(groups - 1))
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
