"""What a user may ask of this lock. Standard library only: a mistyped option is answered at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LadderOptions:
    """What the user asked of a ladder lock.

    Attributes:
        multiplier: alpha, a power of two: the hottest rung's factor, which no other exceeds.
        margin: powers of two by which training the coolest rung alone moves the outputs more than training the whole
            unlocked model does, at any one learning rate.
        calibration: a text file that channels are measured on; the bundled prose when None.
        pairs: kinds of pairs to use; None for every kind the model has.
        layers: layer numbers; None for all.
        seed: decides every random draw.
    """

    multiplier: float = 2.0**58
    margin: float = 7.0
    calibration: str | None = None
    pairs: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    seed: int = 0
