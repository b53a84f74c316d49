"""Typed data on disk: one way to read JSON into a type, one way to name data by its content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from specdef.core.strict_json import JsonError, parse_json, read_json
from specdef.core.text import shown

T = TypeVar("T")


class SchemaError(ValueError):
    """JSON that does not fit its type; the text says where (a JSON path) and what was expected, fit to be shown."""


def parse(data: bytes | str, kind: type[T]) -> T:
    """JSON text as a value of a type: a dataclass, a `msgspec.Struct`, or builtins.

    Numbers are not taken from texts and truths not from numbers. The bounds are those of `core.strict_json`.

    Raises:
        SchemaError: not JSON, or not of that type.

    Example:
        >>> parse('{"a": 1}', dict[str, int])
        {'a': 1}
    """
    try:
        return convert(parse_json(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")), kind)
    except JsonError as error:
        raise SchemaError(f"it {error}") from error


def convert(data: Any, kind: type[T]) -> T:
    """JSON data, already read, as a value of a type.

    Raises:
        SchemaError: not of that type.
    """
    try:
        return msgspec.convert(data, kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise SchemaError(shown(error)) from error


def plain(value: Any) -> Any:
    """A typed value as JSON data: structs and dataclasses as objects, tuples as lists."""
    return _listed(msgspec.to_builtins(value))


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(inner) for name, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, list | tuple) else value


def read(path: Path, kind: type[T]) -> T:
    """A JSON file as a value of a type.

    Raises:
        SchemaError: not JSON, not of that type, or beyond the bounds of `core.strict_json`.
        OSError: the file cannot be read.
    """
    try:
        return convert(read_json(path), kind)
    except JsonError as error:
        raise SchemaError(f"it {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        SchemaError: it does not.
        OSError: the file cannot be read.
    """
    return read(path, dict[str, Any])


def digest(value: Any) -> str:
    """BLAKE3 of JSON data in canonical form: sorted keys, no spaces.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    from blake3 import blake3

    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return blake3(text.encode()).hexdigest()
