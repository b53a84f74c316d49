"""Exact scaling by powers of two, on the stored bits. Needs numpy only, so that planning stays light.

A factor ``2^e`` moves only the exponent field of a floating-point number, so ``(2^e v) (W / 2^e)`` is the product
``v W`` to the last bit, in any order of summation, until the exponent range ends. Everything here checks that end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from specdef.core.dtypes import NUMPY_NAMES

Stored = npt.NDArray[Any]
"""Raw stored values: float16, float32, float64, or bfloat16 as its uint16 bit pattern."""

NUMPY_DTYPES = {stored: np.dtype(name) for stored, name in NUMPY_NAMES.items()}
"""safetensors dtype -> the numpy dtype its bytes are viewed as."""

MAX_EXPONENT = 60
"""With 8 exponent bits, activations, gradients and squared gradients stay finite up to about this power."""


def to_float(stored: Stored, dtype: str) -> npt.NDArray[np.floating[Any]]:
    """Stored values as numpy floats, exactly (bfloat16 widens to float32)."""
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored


def _from_float(values: npt.NDArray[np.floating[Any]], dtype: str) -> Stored:
    """Inverse of `to_float`; bfloat16 keeps the upper half (callers check that the lower half was zero)."""
    if dtype == "BF16":
        return (np.ascontiguousarray(values, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values


def scale(stored: Stored, dtype: str, exponent: int) -> tuple[Stored, npt.NDArray[np.bool_]]:
    """Multiply stored values by ``2^exponent``.

    Math: ``y = x * 2^e``; exact where ``y * 2^-e == x`` bit for bit and both are zero or normal (a subnormal may be
    flushed by the hardware that runs the model), so the inverse scaling is exact whenever this one is.

    Args:
        stored: raw values, any shape; bfloat16 as uint16.
        dtype: safetensors dtype of the tensor: F16, BF16, F32 or F64.
        exponent: e, in powers of two.

    Returns:
        The scaled raw values and a boolean array that is true where the scaling is exact.

    Example:
        >>> import numpy as np
        >>> scaled, exact = scale(np.array([1.5, 0.0, 3e38], dtype=np.float32), "F32", 4)
        >>> scaled[:2].tolist(), exact.tolist()
        ([24.0, 0.0], [True, True, False])
    """
    x = to_float(stored, dtype)
    with np.errstate(over="ignore", under="ignore"):
        y = np.ldexp(x, exponent)
        back = np.ldexp(y, -exponent)
    tiny = np.finfo(x.dtype).tiny
    normal = (np.abs(x) >= tiny) & (np.abs(y) >= tiny)
    exact = np.isfinite(y) & (back == x) & (normal | (x == 0))
    return _from_float(y, dtype), exact


def scale_offset(stored: Stored, dtype: str, exponent: int, offset: float) -> tuple[Stored, npt.NDArray[np.bool_]]:
    """Re-encode a weight the runtime uses as ``float32(offset + w)`` so that this value is scaled by ``2^exponent``.

    Math: find ``w'`` in the stored dtype with ``fl32(offset + w') == 2^e * fl32(offset + w)``; Gemma's norms have
    offset 1. Exact only where such a ``w'`` exists.

    Args:
        stored: raw values, any shape; bfloat16 as uint16.
        dtype: safetensors dtype of the tensor.
        exponent: e, in powers of two.
        offset: what the runtime adds.

    Returns:
        The candidate raw values and a boolean array that is true where the runtime value is exactly scaled.
    """
    with np.errstate(over="ignore", under="ignore"):
        wanted = np.ldexp(np.float32(offset) + to_float(stored, dtype).astype(np.float32), exponent)
        candidate = _round_to(wanted.astype(np.float64) - offset, dtype)
    return candidate, _reaches(stored, candidate, dtype, exponent, offset)


def scale_stored(
    stored: Stored, dtype: str, exponent: int, offset: float = 0.0, loaded_in: Iterable[str] = ()
) -> tuple[Stored, npt.NDArray[np.bool_]]:
    """`scale`, or `scale_offset` where there is an offset; exact only where it also is after a cast to other dtypes.

    Args:
        stored: raw values, any shape; bfloat16 as uint16.
        dtype: safetensors dtype of the tensor.
        exponent: e, in powers of two.
        offset: what the runtime adds.
        loaded_in: safetensors' names of the dtypes that the runtime casts the stored values to.

    Example:
        >>> import numpy as np
        >>> scale_stored(np.array([1.5, 1e-6], dtype=np.float32), "F32", 4, loaded_in=["F16"])[1].tolist()
        [True, False]
    """
    scaled, exact = scale_offset(stored, dtype, exponent, offset) if offset else scale(stored, dtype, exponent)
    for other in loaded_in:
        if other == dtype:
            continue
        with np.errstate(over="ignore", under="ignore"):
            before, after = (_round_to(to_float(v, dtype).astype(np.float64), other) for v in (stored, scaled))
        if offset:
            exact = exact & _reaches(before, after, other, exponent, offset)
        else:
            wanted, held = scale(before, other, exponent)
            exact = exact & held & (after == wanted)
    return scaled, exact


def _reaches(before: Stored, after: Stored, dtype: str, exponent: int, offset: float) -> npt.NDArray[np.bool_]:
    """Where the runtime's ``float32(offset + w)`` is exactly scaled from `before` to `after`."""
    runtime, reached = (np.float32(offset) + to_float(v, dtype).astype(np.float32) for v in (before, after))
    with np.errstate(over="ignore", under="ignore"):
        wanted = np.ldexp(runtime, exponent)
        exact: npt.NDArray[np.bool_] = (reached == wanted) & (np.ldexp(wanted, -exponent) == runtime)
        exact &= np.isfinite(wanted)
    return exact


def _round_to(values: npt.NDArray[np.float64], dtype: str) -> Stored:
    if dtype != "BF16":
        return values.astype(NUMPY_DTYPES[dtype])
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def all_finite(stored: Stored, dtype: str) -> bool:
    """True when no stored value is NaN or infinite."""
    if stored.size == 0:
        return True
    if dtype == "BF16":
        return int((stored & 0x7FFF).max()) < 0x7F80
    if dtype == "F32":
        return int((stored.view(np.uint32) & 0x7FFFFFFF).max()) < 0x7F800000
    return bool(np.isfinite(stored).all())
