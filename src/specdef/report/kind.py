"""How a cell or a table's entry ended, as tables and pictures tell it apart."""

from __future__ import annotations

from enum import Enum, auto


class Kind(Enum):
    """Outcomes, with `specdef.training.outcome.Outcome.BROKEN` split in three. Words are `specdef.report.phrases`'."""

    BROKEN = auto()
    REGAINED = auto()
    SLOWED = auto()
    COLLAPSE = auto()
    STALL = auto()
    INVALID = auto()
    CRASHED = auto()


LOOKS = {
    Kind.BROKEN: "open",
    Kind.REGAINED: "open",
    Kind.SLOWED: "slow",
    Kind.COLLAPSE: "held",
    Kind.STALL: "held",
    Kind.INVALID: "none",
    Kind.CRASHED: "none",
}
"""Classes of the pages' style sheet."""
COLORS = {
    Kind.BROKEN: "#d55e00",
    Kind.REGAINED: "#cc79a7",
    Kind.SLOWED: "#f0c44c",
    Kind.COLLAPSE: "#0072b2",
    Kind.STALL: "#8fd0f5",
    Kind.INVALID: "#d0d0d0",
    Kind.CRASHED: "#4a4a4a",
}
"""Of pictures; from the palette of Okabe and Ito, told apart with every common colour blindness."""
LIGHT_TEXT = {Kind.COLLAPSE, Kind.CRASHED}
"""Colours on which letters must be light."""
