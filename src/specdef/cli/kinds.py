"""Names of kinds in a command's help, from their registry: a kind of another package is listed as well."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperOption

from specdef.errors import SpecdefError

UNDOING, REWRITING, METHODS = "{undoing}", "{rewriting}", "{methods}"
"""What a help text holds where the names of the kinds that undo a lock, or rewrite weights, or defend, go."""


class ListingCommand(TyperCommand):
    """A command that fills the names into its parameters' help once it is the one that was called."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, their help filled; as they are while a shell completes a word."""
        found = super().get_params(ctx)
        if not ctx.resilient_parsing:
            for parameter in found:
                if isinstance(parameter, TyperArgument | TyperOption) and parameter.help:
                    parameter.help = _filled(parameter.help)
        return found


def _filled(help: str) -> str:
    if UNDOING in help or REWRITING in help:
        from specdef.attacks.base import INTERVENTIONS, Intervention

        kinds: list[type[Intervention]] = []
        for name in INTERVENTIONS.names():
            with suppress(SpecdefError):  # a stranger's package that does not import is no reason to show no help
                kinds.append(INTERVENTIONS.get(name))
        undoing = ", ".join(kind.name for kind in kinds if kind.undoes)
        rewriting = ", ".join(kind.name for kind in kinds if kind.rewrite is not Intervention.rewrite)
        return help.replace(UNDOING, undoing).replace(REWRITING, rewriting)
    if METHODS in help:
        from specdef.defences.base import DEFENCES

        return help.replace(METHODS, ", ".join(DEFENCES.names()))
    return help
