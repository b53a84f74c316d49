"""How unusual a model's spectra and channel scales are beside unlocked models of the same family."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from specdef.analysis.inspect import InspectReport
from specdef.errors import SpecdefError

NOTABLE = 2.0
"""Powers of two beyond everything the baseline shows, from which on a figure is called unusual."""


@dataclass(frozen=True)
class Unusual:
    """One figure of a model beside the same figure of the baseline.

    Attributes:
        name: the tensor or pair.
        feature: ``sigma_1``, ``jump`` or ``opposite deviation``. Condition numbers are left out: the smallest singular
            value of an unlocked matrix varies by more than a lock adds.
        value: log2 of the model's figure (the deviation as it is, in powers of two).
        low: smallest value in the baseline, over all its layers of the same place.
        high: largest.
    """

    name: str
    feature: str
    value: float
    low: float
    high: float

    @property
    def excess(self) -> float:
        """Powers of two beyond the baseline's range; 0 within it."""
        return max(0.0, self.value - self.high, self.low - self.value)


def compare_with_baseline(report: InspectReport, baseline: Sequence[InspectReport]) -> list[Unusual]:
    """Every figure of a model that lies outside what a baseline shows, most unusual first.

    Args:
        report: of the model.
        baseline: reports of unlocked models of the same family, with spectra where `report` has them.

    Raises:
        SpecdefError: no baseline, or one of another family.
    """
    if not baseline:
        raise SpecdefError("`baseline` must hold at least one unlocked model; got none.")
    for other in baseline:
        if other.family != report.family:
            raise SpecdefError(
                f"`baseline` must be of the model's family, {report.family}; {other.model} is of family {other.family}."
            )
    ranges: dict[tuple[str, str], tuple[float, float]] = {}
    for place, feature, _, value in (figure for other in baseline for figure in _figures(other)):
        low, high = ranges.get((place, feature), (value, value))
        ranges[place, feature] = min(low, value), max(high, value)
    found = [
        Unusual(name, feature, value, *ranges[place, feature])
        for place, feature, name, value in _figures(report)
        if (place, feature) in ranges
    ]
    if not found:
        raise SpecdefError("`baseline` must share matrices or pairs with the model; nothing could be compared.")
    return sorted((item for item in found if item.excess > 0), key=lambda item: -item.excess)


def is_unusual(found: Iterable[Unusual]) -> bool:
    """Whether any figure lies far enough outside the baseline to be called unusual."""
    return any(item.excess >= NOTABLE for item in found)


def _figures(report: InspectReport) -> Iterator[tuple[str, str, str, float]]:
    """(place, feature, name, value) of every figure; a place is a component or a kind of pair, over all layers."""
    for tensor in report.tensors:
        for feature, value in (("sigma_1", tensor.top[0]), ("jump", tensor.jump)):
            if 0 < value < math.inf:
                yield tensor.component, feature, tensor.name, math.log2(value)
    for pair in report.pairs:
        yield pair.kind, "opposite deviation", pair.id, pair.largest
