"""undo: a lock taken out of the weights without its key."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from specdef.cli.kinds import UNDOING
from specdef.cli.options import Json, Model, Out
from specdef.cli.render import err_console, print_json, safe, say


def undo(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"How, NAME[:name=value,...]; NAME is one of {UNDOING}.")],
    locked: Model,
    out: Out,
    json_: Json = False,
) -> None:
    """Undo a lock in the weights without its key, as an attacker would.

    Example: specdef undo rebalance:form=svd locked undone
    """
    from specdef.certify.api import undo as undo_lock

    with err_console.status(f"undoing: {safe(kind)}"):
        done = undo_lock(kind, locked, out)
    if json_:
        print_json(asdict(done))
        return
    error = done.function_error
    function = "The function is another." if error is None else f"Relative difference of a layer at most {error:.1e}."
    say(
        f"{done.detail}; {done.tensors} tensors written in {done.seconds:.1f} s, parameters "
        f"{done.added_parameters:+,}. {function} "
        f"No key was used; what it takes to know: {done.knowledge}. Wrote {out}"
    )
