"""The families specdef knows, by ``model_type``."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

from specdef.architectures import diffusion, text, vision
from specdef.architectures.spec import LLAMA_NAMES, Architecture, PartNames
from specdef.errors import ArchitectureError


def _declared() -> Iterator[Architecture]:
    """Every map of every file of the folders: adding a family is adding a file."""
    for folder in (text, vision, diffusion):
        for found in pkgutil.iter_modules(folder.__path__):
            yield from importlib.import_module(f"{folder.__name__}.{found.name}").FAMILIES


FAMILIES: tuple[Architecture, ...] = tuple(_declared())
_BY_TYPE = {model_type: family for family in FAMILIES for model_type in family.model_types}


def known_model_types() -> list[str]:
    """Every ``model_type`` that has a declared map, sorted."""
    return sorted(_BY_TYPE)


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The declared family of a ``config.json``.

    Raises:
        ArchitectureError: ``model_type`` is absent or has no declared map; no other family's map is ever tried.
    """
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in _BY_TYPE:
        return _BY_TYPE[model_type]
    near = difflib.get_close_matches(str(model_type), _BY_TYPE, n=3)
    hint = f" Near matches: {', '.join(near)}." if near else ""
    raise ArchitectureError(
        f"`model_type` in config.json must be one of {', '.join(known_model_types())}; got {model_type!r}.{hint} "
        "Lock it with `--map auto`, or declare the family's pairs (CONTRIBUTING.md, 'Adding a family')."
    )


def part_names_of(config: Mapping[str, Any]) -> PartNames:
    """What parts are called in the family of a ``config.json``; Llama's names where it has no declared map."""
    family = _BY_TYPE.get(str(config.get("model_type")))
    return LLAMA_NAMES if family is None else family.part_names
