"""map: the pairs of a model of any family, found and proved by numbers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from specdef.cli.options import Json, Model, option
from specdef.cli.render import err_console, out_console, print_json, safe, say

if TYPE_CHECKING:
    from specdef.mapping.automatic import MapReport


def map(
    model: Model,
    write: Annotated[
        Path | None, option("Write the family's declaration for a person to review.", metavar="FILE.py")
    ] = None,
    on_model: Annotated[
        bool, option("Lock a copy of MODEL and compare its outputs too.", "--on-model/--twin-only")
    ] = True,
    json_: Json = False,
) -> None:
    """Find the pairs of a model of any family on a small random twin, and prove them to the bit.

    Example: specdef map smollm2-135m --write family.py
    """
    from specdef.locks.map_model import map_model

    with err_console.status("mapping"):
        report = map_model(model, write=write, on_model=on_model)
    if json_:
        print_json(asdict(report))
        return
    _print_map(report, write)


def _print_map(report: MapReport, write: Path | None) -> None:
    out_console.print(f"[bold]{safe(report.written.model_type)}[/bold]: {report.num_pairs} pairs.", soft_wrap=True)
    words = {"kept": "[green]Kept[/green]", "refused": "[red]Refused[/red]"}
    for row in report.records():
        word = words.get(row["verdict"], f"[yellow]{row['verdict'].replace('_', ' ').capitalize()}[/yellow]")
        kind = f"{row['kind']} " if row["kind"] else ""
        out_console.print(f"{word} {safe(kind + row['what'])}: {safe(row['reason'])}", soft_wrap=True)
    say(
        f"Proposed {report.proposed}, kept {len(report.kept)}, refused {len(report.refused)}; found and not "
        f"expressible {len(report.not_expressible)}."
    )
    if report.on_model:
        say(f"On the model itself: {report.on_model}.")
    if write is not None:
        say(f"Declaration, to be reviewed: {write}")
