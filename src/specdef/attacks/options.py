"""Options: an intervention's dataclass fields, checked, read as users type them, left out at their defaults."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from specdef.errors import SpecdefError


def check_options(instance: Any) -> None:
    """Refuse values of another type than their field's, choices that are none, and numbers that are not finite.

    Raises:
        SpecdefError: there is one.
    """
    hints = get_type_hints(type(instance))
    for option in dataclasses.fields(instance):
        _check(option.name, getattr(instance, option.name), hints[option.name])


def changed_options(instance: Any) -> dict[str, Any]:
    """The options that differ from their defaults, as JSON data; fields that are not compared are left out."""
    compared = [option for option in dataclasses.fields(instance) if option.compare]
    found = {option.name: (getattr(instance, option.name), _default(option)) for option in compared}
    return {name: _plain(value) for name, (value, default) in found.items() if value != default}


def fit_options(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options from JSON data, as arguments of a kind.

    Raises:
        SpecdefError: an unknown option, or one that is missing.
    """
    hints, fitted = get_type_hints(kind), dict(given)
    known = [option.name for option in dataclasses.fields(kind)]
    for name, value in fitted.items():
        if name not in known:
            listed = ", ".join(known) or "no options"
            raise SpecdefError(f"`{name}` must be left out with {kind.name}, which takes {listed}; got {value!r}.")
        if isinstance(value, list) and get_origin(hints[name]) is tuple:
            fitted[name] = tuple(value)
    required = [option.name for option in dataclasses.fields(kind) if _default(option) is dataclasses.MISSING]
    if missing := [name for name in required if name not in fitted]:
        raise SpecdefError(f"`{missing[0]}` must be given with {kind.name}; it is missing.")
    return fitted


def read_options(kind: Any, text: str) -> dict[str, Any]:
    """Options as a user types them: ``factors=2,order=literal``.

    Raises:
        SpecdefError: not of that form.
    """
    defaults = {option.name: _default(option) for option in dataclasses.fields(kind)}
    options: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not value:
            example = ",".join(f"{name}={name.upper() if value == '' else value}" for name, value in defaults.items())
            wanted = f"have options such as {example}" if example else "be given without options"
            raise SpecdefError(f"`{kind.name}` must {wanted}; got {part!r}.")
        options[name] = _read(name, value, defaults.get(name))
    return options


def _check(name: str, value: Any, kind: Any) -> None:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise SpecdefError(f"`{name}` must be one of {', '.join(map(str, get_args(kind)))}; got {value!r}.")
    elif kind in (int, float, str, bool) and type(value) is not kind:
        raise SpecdefError(f"`{name}` must be of type {kind.__name__}; got {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecdefError(f"`{name}` must be a finite number; got {value}.")


def _default(option: dataclasses.Field[Any]) -> Any:
    if option.default_factory is not dataclasses.MISSING:
        return option.default_factory()
    return option.default


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _read(name: str, text: str, default: Any) -> Any:
    """A value as typed, read as the default's type."""
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise SpecdefError(f"`{name}` must be true or false; got {text!r}.")
        return text == "true"
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError as error:
            raise SpecdefError(f"`{name}` must be a number; got {text!r}.") from error
    return text
