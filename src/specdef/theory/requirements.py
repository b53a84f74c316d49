"""What every theorem asks of its arguments, said in one sentence when it is not met.

Everything is computed in float64: a bound that holds only up to float32 rounding proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from specdef.errors import SpecdefError


class TheoryError(SpecdefError):
    """An argument outside the hypotheses of the theorem it was given to."""


def as_matrix(name: str, value: Tensor, num_axes: int = 2) -> Tensor:
    """The argument in float64, checked: at least `num_axes` axes, none empty, no NaN or inf."""
    if value.ndim < num_axes or 0 in value.shape:
        kind = {1: "vectors", 2: "matrices", 3: "third-order tensors"}[num_axes]
        raise TheoryError(
            f"`{name}` must be a non-empty batch of {kind}; got shape {list(value.shape)}. "
            f"Give it at least {num_axes} axes of length 1 or more."
        )
    if value.is_complex():
        raise TheoryError(f"`{name}` must be real; got {value.dtype}. Pass its real and imaginary parts apart.")
    if not value.isfinite().all():
        raise TheoryError(f"`{name}` must hold finite numbers; got NaN or inf. Check where it was computed.")
    return value.double()


def check_product(names: str, *shapes: Sequence[int]) -> None:
    """Neighbours in a matrix product must share their inner dimension; shapes are [rows, columns] after the batch."""
    for left, right in pairwise(shapes):
        if left[-1] != right[-2]:
            shown = " and ".join(str(list(shape)) for shape in shapes)
            raise TheoryError(
                f"`{names}` must be conformable matrices; got {shown}. Columns of one must equal rows of the next."
            )


def check_t_product(a: Tensor, b: Tensor) -> None:
    """Factors of a T-product share their inner dimension and their third mode."""
    check_product("a` and `b", a.shape[-3:-1], b.shape[-3:-1])
    if a.shape[-1] != b.shape[-1]:
        raise TheoryError(
            f"`a` and `b` must have third modes of one length; got {a.shape[-1]} and {b.shape[-1]}. Pad one with zeros."
        )


def check_index(name: str, value: int, low: int, high: int, why: str) -> None:
    """A singular-value index or a count must lie in [low, high]."""
    if not low <= value <= high:
        raise TheoryError(f"`{name}` must be between {low} and {high}, {why}; got {value}. Choose one in that range.")


def check_positive(name: str, value: float | Tensor) -> Tensor | float:
    """A constant of a convergence theorem must be positive and finite."""
    good = bool(((value > 0) & value.isfinite()).all()) if isinstance(value, Tensor) else 0 < value < math.inf
    if not good:
        shown = value.tolist() if isinstance(value, Tensor) else value
        raise TheoryError(f"`{name}` must be positive and finite; got {shown}. Check its units.")
    return value
