"""A weight as a matrix, whatever its number of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence


def matrix_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a weight as a matrix: a convolution's is [out, in * height * width]; () where it is none.

    Example:
        >>> matrix_shape((8, 3, 5, 5)), matrix_shape((8, 3)), matrix_shape((8,))
        ((8, 75), (8, 3), ())
    """
    if len(shape) == 4:
        return shape[0], math.prod(shape[1:])
    return tuple(shape) if len(shape) == 2 else ()
