"""Options of a defence: from ``name=value`` or YAML to its typed dataclass, each fault said of the option it is in."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

import msgspec

from specdef.core.option_text import read_option
from specdef.core.text import did_you_mean
from specdef.defences.base import Defence
from specdef.errors import SpecdefError


def parse_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """Options as the command line gives them: ``["steps=40", "lr=2e-4"]``. Values stay texts.

    Raises:
        SpecdefError: one is not ``name=value``, or a name is given twice.

    Example:
        >>> parse_pairs(["steps=40"])
        {'steps': '40'}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise SpecdefError(f"`option` must be name=value, such as steps=40; got {pair!r}.")
        if name in found:
            raise SpecdefError(f"`option` {name} must be given once; it is given twice.")
        found[name] = value.strip()
    return found


def make_options(defence: Defence, given: Mapping[str, Any]) -> Any:
    """The typed options of a defence; what is not given keeps its default.

    Args:
        defence: whose `Options` are made.
        given: name -> value; a text is read as what the option is: ``"40"`` as a number, ``"a,b"`` as a list,
            ``"none"`` as nothing.

    Raises:
        SpecdefError: an option the defence has not, or a value of another type or outside its range.
    """
    kinds = typing.get_type_hints(defence.Options)
    names = [field.name for field in fields(defence.Options)]
    for name in given:
        if name not in names:
            raise SpecdefError(_unknown(defence, name, names))
    of = f"defence {defence.name}"
    return defence.Options(**{name: read_option(name, value, kinds[name], of=of) for name, value in given.items()})


def options_to_json(options: Any) -> dict[str, Any]:
    """Options as JSON data, defaults included."""
    return dict(msgspec.json.decode(msgspec.json.encode(asdict(options))))


def _unknown(defence: Defence, name: str, names: list[str]) -> str:
    offered = f"one of {', '.join(names)}" if names else "left out: it has none"
    return f"`option` of defence {defence.name} must be {offered}; got {name!r}.{did_you_mean(name, names, most=1)}"
