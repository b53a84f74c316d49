"""Text from strangers' files, made fit to be shown: no control character reaches a terminal, a page or a log.

Standard library only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 1000
"""Characters of one name that are shown; a header may hold a name of megabytes."""


def shown(text: object) -> str:
    r"""A name from a file (or a path) as it may stand in a sentence: one line, and nothing a terminal obeys.

    Characters that are not printable are written as escapes: controls, line ends, marks that turn the direction of
    writing, zero-width marks, and lone surrogates (bytes of a file name that are no UTF-8). Shown twice is shown once.

    Args:
        text: anything; `str` is taken of it.

    Returns:
        At most `LONGEST` characters, the last an ellipsis where there were more.

    Example:
        >>> print(shown("layer\x1b[31m.weight\n"))
        layer\x1b[31m.weight\n
        >>> print(shown("\u202egnp.exe"), shown("caf\udce9"))
        \u202egnp.exe caf\udce9
    """
    name = _escaped(str(text)[: LONGEST + 1])
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def shown_lines(text: str) -> str:
    """A whole text, such as a message or a table, as it may be printed: the same, but lines stay and none is cut."""
    return "\n".join(map(_escaped, text.split("\n")))


def rate(lr: float) -> str:
    """A learning rate as people write it, three significant digits.

    Example:
        >>> rate(1e-5), rate(3e-4), rate(0.1), rate(3.16e-10)
        ('1e-5', '3e-4', '0.1', '3.16e-10')
    """
    if lr >= 0.01:
        return f"{lr:.3g}"
    digits, exponent = f"{lr:.2e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: it holds no half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def counted(number: int, noun: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "step"), counted(3, "seed")
        ('1 step', '3 seeds')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def did_you_mean(name: object, known: Iterable[str], *, most: int = 2, cutoff: float = 0.5) -> str:
    """A question that names what may have been meant, to stand behind a sentence; empty where nothing is near.

    Args:
        name: what was typed; upper and lower case count as one.
        known: what there is.
        most: how many names at most.
        cutoff: how near a name must be, from 0 (anything) to 1 (the same), as `difflib` measures it.

    Example:
        >>> did_you_mean("adamv", ["adamw", "sgd"]), did_you_mean("zzz", ["adamw"])
        (" Did you mean 'adamw'?", '')
    """
    spelled = {one.lower(): one for one in known}
    near = difflib.get_close_matches(str(name).lower(), spelled, n=most, cutoff=cutoff)
    return f" Did you mean {' or '.join(shown(repr(spelled[one])) for one in near)}?" if near else ""
