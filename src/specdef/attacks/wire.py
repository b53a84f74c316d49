"""An attack as JSON data. The names are frozen: the hash of a cell is over them, so results outlive renamed fields.

Version 1 has a field each for adapters, freezing, rewriting and rates; only the kinds that stood when it was written
know those fields, each its own (`Intervention.to_wire`). Everything else goes into the list ``interventions``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from specdef.attacks.base import INTERVENTIONS, Attack, Intervention
from specdef.core.schema import SchemaError, convert
from specdef.errors import SpecdefError
from specdef.training.recipe import Recipe

LIST = "interventions"
_ALWAYS: Mapping[str, None] = {"adapter": None, "freeze": None}
"""Fields that version 1 writes even where they are empty."""
_OWN = ("recipe", "stop", "utility_factor")
_WIRE = {"gradient_accumulation_steps": "accumulation", "max_grad_norm": "clip", "retain_weight": "general_share"}
"""Field of `Recipe` -> its name on the wire."""
_FIELD = {wire: name for name, wire in _WIRE.items()}
_LATER = ("clip_each", "eps", "optimizer_options")
"""Fields of `Recipe` added after the first results: left out where they are at their defaults."""


def recipe_to_wire(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON data."""
    found = {name: value for name, value in asdict(recipe).items() if value or name not in _LATER}
    if recipe.optimizer_options:
        listed = dict(recipe.optimizer_options).items()
        found["optimizer_options"] = {name: list(v) if isinstance(v, tuple) else v for name, v in listed}
    return {_WIRE.get(name, name): value for name, value in found.items()}


def recipe_from_wire(data: Mapping[str, Any]) -> Recipe:
    """The recipe that `recipe_to_wire` wrote.

    Raises:
        SpecdefError: the data does not fit.
    """
    named = {_FIELD.get(name, name): value for name, value in data.items()}
    try:
        convert(named, Recipe)  # for the types alone: it would make 1 a 1.0, which is another identity
        return Recipe(**named)
    except (TypeError, SchemaError) as error:
        raise SpecdefError(f"`recipe` must hold the fields this version knows; it does not ({error}).") from error


def attack_to_wire(attack: Attack) -> dict[str, Any]:
    """An attack as JSON data: the same for equal attacks, another for others."""
    return {
        "recipe": recipe_to_wire(attack.recipe),
        **_ALWAYS,
        **_interventions_to_wire(attack.interventions),
        "stop": attack.stop,
        "utility_factor": attack.utility_factor,
    }


def attack_from_wire(data: Mapping[str, Any]) -> Attack:
    """The attack that `attack_to_wire` wrote.

    Raises:
        SpecdefError: the data does not fit, or names a kind that is not installed.
    """
    try:
        found = [one for name, value in data.items() if value and name not in _OWN for one in _read_field(name, value)]
        return Attack(recipe_from_wire(data["recipe"]), tuple(found), data["stop"], data["utility_factor"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SpecdefError(
            f"`attack` must be as this version writes it; it is not ({type(error).__name__}: {error})."
        ) from error


def _interventions_to_wire(interventions: Sequence[Intervention]) -> dict[str, Any]:
    """The frozen fields, where each has room for what it must say; else all in one list, in order."""
    fields = [(name, value) for one in interventions for name, value in one.to_wire().items()]
    names = [name for name, _ in fields]
    if LIST in names or len(set(names)) < len(names):
        return {LIST: [entry for one in interventions for entry in Intervention.to_wire(one)[LIST]]}
    return dict(fields)


def _read_field(name: str, value: Any) -> list[Intervention]:
    if name == LIST:
        return [INTERVENTIONS.get(entry["name"]).from_options(entry["options"]) for entry in value]
    for kind in map(INTERVENTIONS.get, INTERVENTIONS.names()):
        if (found := kind.from_wire(name, value)) is not None:
            return [found]
    raise SpecdefError(f"`{name}` of an attack must be of a kind that is installed; got {value!r}.")
