"""How numbers, names and lists are written in every report."""

from __future__ import annotations

import math
import unicodedata


def spread(middle: float, deviation: float | None, count: int) -> str:
    """A mean, with the deviation when there is more than one value.

    >>> spread(20.0, 0.0, 1), spread(30.0, 8.165, 3)
    ('20', '30 ± 8.2')
    """
    return number(middle) + (f" ± {deviation or 0.0:.2g}" if count > 1 else "")


def number(value: float) -> str:
    """A step count, score or ratio with up to three significant digits, without an exponent below a million.

    >>> number(20.0), number(23.3333), number(0.9666), number(1.0), number(1234.5), number(3e9)
    ('20', '23.3', '0.967', '1', '1234', '3e+09')
    """
    if 1000 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.3g}"


def power(multiplier: float) -> str:
    """A multiplier; large powers of two as such.

    >>> power(1024.0), power(2.0**20), power(1e5)
    ('1024', '2^20', '100000')
    """
    exponent = math.frexp(multiplier)
    return f"2^{exponent[1] - 1}" if exponent[0] == 0.5 and exponent[1] > 11 else number(multiplier)


def seconds(value: float | None) -> str:
    """A duration.

    >>> seconds(None), seconds(3.25), seconds(61.7), seconds(4000)
    ('—', '3.2 s', '62 s', '67 min')
    """
    if value is None:
        return "—"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def listed(names: list[str]) -> str:
    """Names as a sentence has them.

    >>> listed(["T0"]), listed(["T0", "T1", "T2"])
    ('T0', 'T0, T1 and T2')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def shortened(text: str, most: int = 72) -> str:
    """A long text with its middle left out."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]} … {text[-half:]}"


def plain(value: object) -> str:
    """Text on one line without control characters, direction marks or anything that cannot be written as UTF-8."""
    text = " ".join(str(value).split())
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)
