"""What is wrong with a study file, as a sentence that names the place: ``attacks[2].lr``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from specdef.core.text import did_you_mean
from specdef.errors import SpecdefError

T = TypeVar("T")


class StudyError(SpecdefError):
    """A study file cannot be used."""


def at(place: str, make: Callable[[], T], *, argument: str = "") -> T:
    """What `make` makes; a fault of it is said of a place in the file: `lr` becomes `attacks[2].lr`.

    Args:
        place: in the file.
        make: of the library.
        argument: what the library calls the place itself, where that is not the place's own name.

    Raises:
        StudyError: `make` raised SpecdefError.
    """
    try:
        return make()
    except SpecdefError as error:
        found = re.match(r"`([\w.\-]+)`", text := str(error))
        if found is None:
            raise StudyError(f"`{place}` must be usable; it is not: {text}") from error
        name = found.group(1)
        last = re.sub(r"\[\d+\]$", "", place).rpartition(".")[2]
        whole = place if name == argument or last in (name, name + "s") else f"{place}.{name}"
        raise StudyError(f"`{whole}`{text[found.end() :]}") from error


def refuse_twins(place: str, names: Sequence[str]) -> None:
    """Raise StudyError where two entries of a list have one name."""
    for number, name in enumerate(names):
        if name in names[:number]:
            raise StudyError(f"`{place}[{number}]` must differ from the others; {name} stands there twice.")


_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "object": "a mapping of names to values",
    "array": "a list",
}


def sentence(fault: str, content: Any, kind: type) -> str:
    """msgspec's message about some data as one of ours.

    Args:
        fault: the message.
        content: the data.
        kind: the type the data was to have.
    """
    text, _, path = fault.partition(" - at `$")
    place = path.removesuffix("`").lstrip(".")
    where = f"`{place or 'study'}`"
    if found := re.match(r"Object contains unknown field `(.*)`", text):
        names = [field.name for part in _kinds_at(kind, place) for field in _fields(part)]
        hint = did_you_mean(found.group(1), names, most=1) or f" Known are {', '.join(names)}."
        return f"`{_join(place, found.group(1))}` must be left out: there is no such name.{hint}"
    if found := re.match(r"Object missing required field `(.*)`", text):
        return f"`{_join(place, found.group(1))}` must be given; it is missing."
    if found := re.match(r"Expected `([^`]*)`(.*?)(?:, got `[^`]*`)?$", text):
        words = [_WORDS.get(name, name) for name in found.group(1).split(" | ") if name != "null"]
        return f"{where} must be {' or '.join(words)}{found.group(2)}; got {_shown(_value_at(content, place))}."
    choices = [str(value) for part in _kinds_at(kind, place) for value in _choices(part)]
    wanted = f"one of {', '.join(choices)}" if len(choices) > 1 else "".join(choices) or "what its place asks for"
    return f"{where} must be {wanted}; got {_shown(_value_at(content, place))}."


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _kinds_at(kind: Any, place: str) -> list[Any]:
    """The types that may stand at a place of a type."""
    kinds = [kind]
    for step in re.findall(r"\w+|\[[^\]]*\]", place):
        plain = [part for whole in kinds for part in _parts(whole)]
        if step.startswith("["):
            kinds = [inner for part in plain for inner in get_args(part) if inner is not Ellipsis]
        else:
            kinds = [field.type for part in plain for field in _fields(part) if field.name == step]
    return [part for whole in kinds for part in _parts(whole)]


def _parts(kind: Any) -> list[Any]:
    """A type, or the members of a union, without what only constrains them."""
    if isinstance(kind, type) or get_origin(kind) in (tuple, list, dict, Literal):
        return [kind]
    return [part for inner in get_args(kind) for part in _parts(inner)]


def _fields(kind: Any) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else ()


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _value_at(content: Any, place: str) -> Any:
    for step in re.findall(r"\w+|\[\d+\]", place):
        try:
            content = content[int(step[1:-1])] if step.startswith("[") else content[step]
        except (KeyError, IndexError, TypeError):
            return content
    return content


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
