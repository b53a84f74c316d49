"""Multipliers as users type them. Standard library only: a typing mistake must be answered at once."""

from __future__ import annotations

import math
import re

from specdef.errors import PlanError


def parse_multiplier(text: str) -> float:
    """The multiplier (alpha) a user typed: ``2^20``, ``2**20``, ``1048576`` or ``1e4``.

    Raises:
        PlanError: not a finite number greater than 1.

    Example:
        >>> parse_multiplier("2^10"), parse_multiplier("1e4")
        (1024.0, 10000.0)
    """
    match = re.fullmatch(r"\s*2\s*(?:\^|\*\*)\s*(\d{1,4})\s*", text)
    try:
        value = math.ldexp(1.0, int(match.group(1))) if match else float(text)
    except (ValueError, OverflowError):
        value = math.nan
    if not (math.isfinite(value) and value > 1):
        raise PlanError(f"`multiplier` must be a finite number above 1, such as 2^20 or 1e4; got {text!r}.")
    return value


def exponent_of(multiplier: float) -> int:
    """The whole number e with ``2^e == multiplier``.

    Raises:
        PlanError: not a power of two; the message names the two that enclose it.

    Example:
        >>> exponent_of(1024.0)
        10
    """
    mantissa, exponent = math.frexp(multiplier)
    if mantissa != 0.5:
        low = exponent - 1
        raise PlanError(
            f"`multiplier` must be a power of two for an exact lock; got {written(multiplier)}. "
            f"2^{low} (= {2**low:,}) and 2^{low + 1} (= {2 ** (low + 1):,}) fit."
        )
    return exponent - 1


def written(multiplier: float) -> str:
    """A multiplier as text that reads back as the same number: short where that loses nothing.

    Example:
        >>> written(1e4), written(1234567.0), written(1e9), written(1.1e-3 + 1e5)
        ('10000', '1234567', '1e+09', '100000.0011')
    """
    short = f"{multiplier:g}"
    if float(short) == multiplier:
        return short
    return str(int(multiplier)) if multiplier.is_integer() else repr(multiplier)
