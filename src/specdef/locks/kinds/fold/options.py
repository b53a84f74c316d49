"""What a user may ask of this lock. Standard library only: a mistyped option is answered at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["up", "down"]


@dataclass(frozen=True)
class FoldOptions:
    """What the user asked of a fold lock.

    Attributes:
        multiplier: alpha, a power of two.
        channels: channels scaled per pair.
        direction: ``up`` scales the producer up (large activations), ``down`` scales it down (small ones).
        pairs: kinds of pairs to use; None for every kind the model has.
        layers: layer numbers; None for all.
        num_layers: draw this many layers at random instead.
        runtimes: what the locked model must run in, of `locks.runtimes.RULES`: pairs and exponents are kept to it.
        seed: decides every random draw.
    """

    multiplier: float = 2.0**20
    channels: int = 1
    direction: Direction = "up"
    pairs: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    num_layers: int | None = None
    runtimes: tuple[str, ...] = ()
    seed: int = 0
