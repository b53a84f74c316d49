"""Scores of labels, all of them functions of the table of labels wanted and found, with their standard errors.

A score s does not change when every count n[a, b] (wanted a, found b) doubles. So a row adds n ds/dn[a, b] to it to the
first order, with n rows in all, and these sum to zero (Euler): s + n ds/dn[a, b], row by row, has mean s, and the
standard error of that mean is the delta method's. Rows that stand or fall together are summed first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from specdef.tasks.labelled import by_class
from specdef.tasks.score import Score

Counts = npt.NDArray[np.float64]
"""Rows by label wanted (first axis) and label found (second): [labels, labels]."""

Measure = Callable[[Counts], tuple[float, Counts]]


@dataclass(frozen=True)
class Scorer:
    """A score of labels.

    Attributes:
        measure: counts -> the score, and its derivative by every count [labels, labels].
        chance: rows of each wanted label -> the best expected score of who does not read.
    """

    measure: Measure
    chance: Callable[[Sequence[int]], float]


def label_score(measure: Measure, found: Sequence[int], wanted: Sequence[int], groups: Sequence[Hashable]) -> Score:
    """The score, never below zero, what every group of rows adds to it, and every label's share of its rows.

    Args:
        measure: that of one of `SCORERS`, or `mean_f1`.
        found: label given, per row.
        wanted: the row's own label.
        groups: what the row belongs to; rows of a group stand or fall together.

    Example:
        >>> score = label_score(SCORERS["accuracy"].measure, [0, 0, 1, 1], [0, 0, 0, 1], range(4))
        >>> round(score.value, 4), score.by_group
        (0.8333, (1.0556, 1.0556, 0.3889, 0.8333))
    """
    size = max(*found, *wanted) + 1
    counts = np.zeros((size, size))
    np.add.at(counts, (np.array(wanted), np.array(found)), 1)
    value, slopes = measure(counts)
    sums: dict[Hashable, float] = {}
    for a, b, group in zip(wanted, found, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + float(slopes[a, b])
    shown = max(value, 0.0)
    by_group = tuple(round(shown + len(sums) * added, 4) for added in sums.values())
    return Score(shown, by_group, by_class(found, wanted))


def _accuracy(counts: Counts) -> tuple[float, Counts]:
    """Mean over the labels of the share of their rows that got it."""
    rows, right = counts.sum(1), np.diag(counts)
    kept = rows > 0
    share = np.divide(right, rows, out=np.zeros_like(rows), where=kept)
    each = np.divide(1.0, rows, out=np.zeros_like(rows), where=kept) / kept.sum()
    return float(share[kept].mean()), np.diag(each) - (each * share)[:, None]


def _f1(counts: Counts) -> tuple[float, Counts]:
    """F1 of the larger of two labels; with more labels, the mean over them of each one's."""
    labels = np.flatnonzero(counts.sum(1))
    return _mean_f1(counts, labels[-1:] if len(labels) == 2 else labels)


def mean_f1(labels: Sequence[int]) -> Measure:
    """Mean F1 of some labels, each of which is wanted for a row at least."""
    return lambda counts: _mean_f1(counts, labels)


def _mean_f1(counts: Counts, labels: Sequence[int] | npt.NDArray[np.intp]) -> tuple[float, Counts]:
    value, slopes = 0.0, np.zeros_like(counts)
    for label in labels:
        right, both = counts[label, label], counts[label].sum() + counts[:, label].sum()
        value += 2 * right / both / len(labels)
        slopes[label, label] += 2 / both / len(labels)
        slopes[label] -= 2 * right / both**2 / len(labels)
        slopes[:, label] -= 2 * right / both**2 / len(labels)
    return float(value), slopes


def _matthews(counts: Counts) -> tuple[float, Counts]:
    """Matthews' correlation of labels wanted and found, for any number of labels (Gorodkin 2004); 0 where one is
    constant.
    """
    size, right = counts.sum(), np.trace(counts)
    rows, columns = counts.sum(1), counts.sum(0)
    top = right * size - rows @ columns
    wanted, found = size**2 - rows @ rows, size**2 - columns @ columns
    if wanted == 0 or found == 0:
        return 0.0, np.zeros_like(counts)
    below = np.sqrt(wanted * found)
    slope_top = size * np.eye(len(counts)) + right - columns[:, None] - rows[None, :]
    slope_below = 2 * (size - columns)[None, :] * wanted + 2 * (size - rows)[:, None] * found
    return float(top / below), slope_top / below - top * slope_below / (2 * below**3)


def _one_in(rows: Sequence[int]) -> float:
    return 1 / len(rows)


def _chance_f1(rows: Sequence[int]) -> float:
    """Two labels: always the larger. More: each as often as it is wanted."""
    share = rows[-1] / sum(rows)
    return 2 * share / (1 + share) if len(rows) == 2 else 1 / len(rows)


SCORERS = {
    "accuracy": Scorer(_accuracy, _one_in),
    "f1": Scorer(_f1, _chance_f1),
    "matthews": Scorer(_matthews, lambda rows: 0.0),
}
"""What a user calls them."""
