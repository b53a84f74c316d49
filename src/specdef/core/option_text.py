"""One option of a kind: a text or YAML data, read as the type that the kind gives it."""

from __future__ import annotations

import re
import typing
from typing import Any

import msgspec

from specdef.errors import SpecdefError

_WORDS = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "a text", "null": "none"}


def read_option(name: str, value: Any, kind: Any, *, of: str) -> Any:
    """A value as the type `kind`.

    Args:
        name: of the option.
        value: a text is read as what the option is: ``"40"`` as a number, ``"a,b"`` as a list, ``"none"`` as nothing.
        kind: the option's type.
        of: whose option it is, as an error says it.

    Raises:
        SpecdefError: the value does not fit.

    Example:
        >>> read_option("steps", "40", int, of="defence x"), read_option("pairs", "a, b", tuple[str, ...], of="lock y")
        (40, ('a', 'b'))
    """
    parts = typing.get_args(kind)
    read = value
    if isinstance(value, str) and value.lower() == "none" and type(None) in parts:
        read = None
    elif isinstance(value, str) and any(typing.get_origin(part) in (tuple, list) for part in (kind, *parts)):
        read = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return msgspec.convert(read, kind, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        expected = re.match(r"Expected `([^`]*)`", str(error))
        wanted = str(error) if expected is None else " or ".join(map(_word, expected.group(1).split(" | ")))
        raise SpecdefError(f"`{name}` must be {wanted} in {of}; got {value!r}.") from error


def _word(name: str) -> str:
    return _WORDS.get(name, f"a value of type {name}")
