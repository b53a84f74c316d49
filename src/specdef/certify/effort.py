"""Effort: how closely, how widely and how long a certificate searches. One table of levels; threat models read it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from specdef.errors import SpecdefError
from specdef.training.outcome import StopRule


@dataclass(frozen=True)
class Effort:
    """One level.

    Attributes:
        name: what users type.
        factor: between a rate that stalls and one that collapses, rates are tried until neighbours are this close.
        near: the same where a score is nearer the target than chance, and around the best such score.
        spacing: no two neighbouring rates of a search are further apart than this, whatever they came to.
        above: how far above its first rates a search goes on while the highest stalls.
        below: how far below the lowest it goes on where that collapses.
        every_attack: whether an attack that is tried at one rate gets a search however low its score is.
        longer: the best run that stalls is tried with this many times the steps.
        stop: when a run ends before its last step; a thorough search takes every run to its end.
        guided: whether what was found decides what is tried next. Without, T0 and T1 try what they list, and T2 to T4
            cut a gap wider than `factor` in three.
    """

    name: str
    factor: float
    near: float
    spacing: float = math.inf
    above: float = 1.0
    below: float = 1.0
    every_attack: bool = False
    longer: int = 1
    guided: bool = True
    stop: StopRule = "ruin"

    @property
    def untried(self) -> tuple[str, ...]:
        """What certificates say is left out at this level."""
        if not self.guided:
            return (
                f"rates between a stall and a collapse within a factor of {self.factor:g} (effort {self.name})",
                f"rates between those that T0 and T1 list, a factor of ten apart (effort {self.name})",
            )
        apart = "however far apart" if math.isinf(self.spacing) else f"within a factor of {self.spacing:g}"
        return (
            f"rates between two neighbours within a factor of {self.factor:g} (effort {self.name})",
            f"rates between two neighbours that both stall, or both collapse, far from the target, {apart}",
            *(() if self.every_attack else ("a search of rates for attacks tried at one rate, far from the target",)),
        )


QUICK = Effort("quick", factor=5.0, near=5.0, guided=False)
STANDARD = Effort("standard", factor=2.0, near=1.25, above=10.0, below=10.0)
THOROUGH = Effort(
    "thorough",
    factor=1.25,
    near=1.25,
    spacing=6.0,
    above=100.0,
    below=1000.0,
    every_attack=True,
    longer=2,
    stop="budget",
)
EFFORTS = {level.name: level for level in (QUICK, STANDARD, THOROUGH)}


def effort_of(name: str) -> Effort:
    """The level of this name.

    Raises:
        SpecdefError: there is none.
    """
    if name not in EFFORTS:
        raise SpecdefError(f"`effort` must be one of {', '.join(EFFORTS)}; got {name!r}.")
    return EFFORTS[name]
