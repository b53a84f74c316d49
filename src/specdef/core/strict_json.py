"""JSON from strangers, read with bounds: of size, depth, digits; no name twice, no text that is not Unicode.

Everything this project reads as JSON comes through here. Standard library only.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specdef.core.text import is_unicode, shown

MAX_BYTES = 64 << 20
"""Of one file. The index of the largest open models has about 10 MB."""
MAX_DEPTH = 64
"""Lists and objects in each other. Real files have fewer than ten; Python's own writer fails near a thousand."""
MAX_DIGITS = 40
"""Of an integer. Tokenizers write 10^30 for "no limit"."""


class JsonError(ValueError):
    """Text that is not read; the message is the end of a sentence: "is not valid JSON"."""


class DuplicateNameError(JsonError):
    """An object gives a name twice. `name` is fit to be shown."""

    def __init__(self, name: str) -> None:
        self.name = shown(name)
        super().__init__(f"gives the name {self.name} twice")


def parse_json(text: bytes, *, constants: bool = False) -> Any:
    """JSON text as Python data.

    Args:
        text: UTF-8.
        constants: allow NaN and Infinity, which are no JSON but which Hugging Face writes into some config.json.

    Raises:
        JsonError: it is not JSON, or beyond the bounds above.

    Example:
        >>> parse_json(b'{"a": [1, 2.5, null]}')
        {'a': [1, 2.5, None]}
        >>> parse_json(b'{"a": 1, "a": 2}')
        Traceback (most recent call last):
        specdef.core.strict_json.DuplicateNameError: gives the name a twice
    """
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=float if constants else _refuse_constant,
        )
    except JsonError:
        raise
    except RecursionError:
        raise JsonError(f"nests deeper than {MAX_DEPTH} levels") from None
    except ValueError:
        raise JsonError("is not valid JSON") from None
    _check_depth(value)
    if b"\\u" in text:  # UTF-8 itself cannot spell a lone surrogate
        _check_unicode(value)
    return value


def read_json(path: Path, *, constants: bool = False) -> Any:
    """A JSON file as Python data; of a file that is too large, no more than the bound is read.

    Raises:
        JsonError: see `parse_json`; or the file is larger than `MAX_BYTES`, or no plain file.
        OSError: the file cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise JsonError("is not a plain file")
    with path.open("rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise JsonError(f"is larger than {MAX_BYTES >> 20} MiB")
    return parse_json(text, constants=constants)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise DuplicateNameError(name)
            seen.add(name)
    return entries


def _integer(digits: str) -> int:
    if len(digits.removeprefix("-")) > MAX_DIGITS:
        raise JsonError(f"holds an integer of more than {MAX_DIGITS} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise JsonError(f"holds the number {shown(digits[:20])}, which is too large")
    return value


def _refuse_constant(name: str) -> Any:
    raise JsonError(f"holds {name}, which is no JSON number")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _parts(outer) if isinstance(inner, dict | list)]
        if not level:
            return
    raise JsonError(f"nests deeper than {MAX_DEPTH} levels")


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _check_unicode(value: Any) -> None:
    """Refuse lone surrogates, which no file and no page could be written with. `value` nests no deeper than allowed."""
    if isinstance(value, str):
        if not is_unicode(value):
            raise JsonError("holds text that is not valid Unicode")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_unicode(name)
            _check_unicode(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_unicode(inner)
