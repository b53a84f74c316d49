"""Presets: a word users type, the kind of lock it stands for, and what it changes in that kind's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from specdef.checkpoint.layout import load_config
from specdef.core.option_text import read_option
from specdef.errors import PlanError
from specdef.linalg.multiplier import parse_multiplier
from specdef.locks.base import LOCKS, LockKind
from specdef.models.base import find_kind


@dataclass(frozen=True)
class Preset:
    """A kind of lock by name, with options that differ from its defaults."""

    lock: str
    options: Mapping[str, Any] = field(default_factory=dict)


PRESETS = {"exact": Preset("fold"), "paper": Preset("inject"), "ladder": Preset("ladder")}
"""exact: one power of two for every pair, identical function. ladder: as exact, with a factor for every layer, on the
channels that vary least; it runs the model once to plan. paper: Construction 1 of the main paper."""
DEFAULT = "exact"
"""The preset for a model in memory, and wherever certificates favour no other."""
WITH_TARGETS = "paper"
"""The preset for a module whose layers are named one by one."""


def default_preset(folder: Path) -> str:
    """The preset of a model folder when none is named: the one that certificates of its kind of model favour.

    Raises:
        CheckpointError: it holds no model.
    """
    kind = find_kind(load_config(folder))
    return (kind and kind.default_preset) or DEFAULT


def preset_names() -> tuple[str, ...]:
    """Everything `preset` may be: presets, and kinds of locks by their own names."""
    return (*PRESETS, *(name for name in LOCKS.names() if name not in PRESETS))


def find_preset(name: str) -> tuple[LockKind, dict[str, Any]]:
    """The kind of lock a preset (or a kind's own name) stands for, and its changed options.

    Raises:
        PlanError: neither.
    """
    if name in PRESETS:
        return LOCKS.get(PRESETS[name].lock), dict(PRESETS[name].options)
    if name not in LOCKS.names():
        raise PlanError(f"`preset` must be one of {', '.join(preset_names())}; got {name!r}.")
    return LOCKS.get(name), {}


def lock_options(preset: str, given: Mapping[str, Any]) -> tuple[LockKind, Any]:
    """A preset with the user's changes, checked.

    Args:
        preset: of `PRESETS`, or a kind's own name.
        given: options by name; None counts as not given, a multiplier may be a text such as ``2^20``.

    Raises:
        PlanError: an unknown preset, an option it has not, or a value no model could satisfy.
    """
    kind, options = find_preset(preset)
    options |= {name: value for name, value in given.items() if value is not None}
    if "multiplier" in options:
        options["multiplier"] = parse_multiplier(str(options["multiplier"]))
    return kind, kind.options(options)


def own_options(preset: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Options of a preset's kind of lock as users type them, read as their types, for `lock_options`.

    Args:
        preset: of `PRESETS`, or a kind's own name.
        texts: option -> what was typed.

    Raises:
        SpecdefError: an unknown preset, an option that its kind has not, or a value of another type.
    """
    kind, _ = find_preset(preset)
    kind.refuse_unknown(texts)
    types = get_type_hints(kind.Options)
    return {
        # a multiplier may be a power such as 2^20, which `lock_options` reads
        name: text if name == "multiplier" else read_option(name, text, types[name], of=f"lock {kind.name}")
        for name, text in texts.items()
    }
