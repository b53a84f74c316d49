"""What a metric gives: a score, and what it is made of, so that it can be said how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Score:
    """A share in [0, 1].

    Attributes:
        value: the share.
        by_group: what every group of questions that stand or fall together, such as one fact asked in several wordings,
            adds to the share, in a fixed order: their mean is the share. Where groups are of one size it is the share
            of the group's questions. None where that is not known.
        by_class: of a classifier, label -> the share of its rows that got it; None where there are no labels.
    """

    value: float
    by_group: tuple[float, ...] | None = None
    by_class: Mapping[str, float] | None = field(default=None, repr=False)

    def __float__(self) -> float:
        return self.value

    @property
    def error(self) -> float | None:
        """Standard error over the draw of groups; None where it is not known."""
        if self.by_group is None or len(self.by_group) < 2:
            return None
        count = len(self.by_group)
        mean = sum(self.by_group) / count
        return math.sqrt(sum((one - mean) ** 2 for one in self.by_group) / (count - 1) / count)


def share(right: Sequence[bool], groups: Sequence[Hashable]) -> Score:
    """The share of questions answered right.

    What a group adds goes by how many questions it has (delta method, as in `specdef.tasks.confusion`).

    Args:
        right: per question.
        groups: per question, what it belongs to.

    Example:
        >>> found = share([True, True, False, False], ["a", "a", "b", "b"])
        >>> found, found.error
        (Score(value=0.5, by_group=(1.0, 0.0)), 0.5)
    """
    found: dict[Hashable, list[bool]] = {}
    for one, group in zip(right, groups, strict=True):
        found.setdefault(group, []).append(one)
    value, mean_size = sum(right) / len(right), len(right) / len(found)
    added = (value + (sum(ones) - len(ones) * value) / mean_size for ones in found.values())
    return Score(value, tuple(round(one, 4) for one in added))


def as_score(found: float | Score) -> Score:
    """A metric's answer as a score; a bare number says nothing of its error."""
    return found if isinstance(found, Score) else Score(float(found))
