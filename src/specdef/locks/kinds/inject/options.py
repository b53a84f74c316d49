"""What a user may ask of this lock. Standard library only: a mistyped option is answered at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class InjectOptions:
    """What the user asked of an inject lock; the defaults are the paper's.

    Attributes:
        multiplier: alpha, any number above 1.
        rank: k, singular values scaled per matrix.
        components: matrices to draw from; the family's default (gate, output and value projections) when None.
        layers: lock every one of `components` in these layers; None to draw.
        num_matrices: how many matrices to draw when `layers` is None (5 when None).
        share: of the matrices that may be drawn, instead of `num_matrices`; 1 is all of them.
        basis: ``svd`` or ``axis``.
        form: C stored ``dense`` or ``low_rank``.
        seed: decides every random draw.
    """

    multiplier: float = 1e4
    rank: int = 25
    components: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    num_matrices: int | None = None
    share: float | None = None
    basis: Literal["svd", "axis"] = "svd"
    form: Literal["dense", "low_rank"] = "dense"
    seed: int = 0
