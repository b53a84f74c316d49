"""A recipe file beside typed options: what is typed wins, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from specdef.errors import SpecdefError

if TYPE_CHECKING:
    from specdef.attacks.base import Intervention
    from specdef.training.recipe import Recipe

_TYPED = {"optimizer_options": "optimizer_option"}
"""Name in a recipe -> name of the parameter, where they differ."""


def asked_attack(
    context: typer.Context, file: Path | None, values: Mapping[str, Any], named: list[str], *, early_stop: bool
) -> tuple[Recipe, list[Intervention | str], bool]:
    """Recipe, interventions and early stop of an attack.

    Args:
        context: of the command; it knows which options were typed.
        file: of --recipe.
        values: of every option of the recipe, typed or not.
        named: interventions that were typed.
        early_stop: whether --early-stop was typed.

    Raises:
        SpecdefError: the file is of no use, or has interventions where some were typed.
    """
    from specdef.training.recipe import Recipe

    if file is None:
        return Recipe(**values), list(named), early_stop
    from specdef.certify.own_attacks import read_attack

    plan = read_attack(file, Recipe())
    if plan.interventions and named:
        raise SpecdefError(
            f"`recipe` must hold no interventions where some are typed; {file} holds "
            f"{', '.join(one.label for one in plan.interventions)}. Leave out {named[0].partition(':')[0]} or the "
            "file's."
        )
    typed = {name: value for name, value in values.items() if _is_typed(context, _TYPED.get(name, name))}
    return (
        Recipe(**{**values, **plan.changes, **typed}),
        [*plan.interventions, *named],
        early_stop or plan.stop == "paper",
    )


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
