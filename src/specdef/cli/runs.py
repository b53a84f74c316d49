"""runs: what finished attacks came to, a row each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len, set_cell_size
from rich.table import Table

from specdef.cli.options import Json, Results
from specdef.cli.render import number, out_console, print_json, safe, say
from specdef.core.text import counted, shown

if TYPE_CHECKING:
    from specdef.certify.result import StoredCell

COLUMNS = ("model", "attack", "seed", "outcome", "score", "cell", "step", "utility", "seconds")
"""Where the terminal is narrow, the last ones are left out, down to `FEWEST` beside the attack."""
FEWEST = 3
NUMBERS = ("seed", "score", "step", "seconds")


def runs(folder: Results, json_: Json = False) -> None:
    """List every finished attack in a results folder.

    Example: specdef runs results
    """
    from specdef.certify.result import cell_to_wire
    from specdef.certify.store import stored_cells

    cells = stored_cells(folder)
    if json_:
        print_json([cell_to_wire(cell) for cell in cells])
        return
    rows = [_row(cell) for cell in cells]
    names = list(COLUMNS)
    for name in ("model", "seed"):
        if len(rows) > 1 and len({row[name] for row in rows}) == 1:
            say(f"{name}: {rows[0][name]}")
            names.remove(name)
    out_console.print(_table(rows, names, out_console.width))


def _table(rows: list[dict[str, str]], names: list[str], width: int) -> Table:
    """A line a row, in `width` characters: the last columns give way, then the attack is cut."""
    widths = {name: max(len(name), *(cell_len(row[name]) for row in rows)) for name in names}
    fixed = [name for name in names if name != "attack"]
    while _left(width, widths, fixed) < min(widths["attack"], 24) and len(fixed) > FEWEST:
        fixed.pop()
    widths["attack"] = max(1, min(widths["attack"], _left(width, widths, fixed)))
    table = Table(box=None, pad_edge=False)
    kept = [name for name in names if name in (*fixed, "attack")]
    for name in kept:
        side: Literal["left", "right"] = "right" if name in NUMBERS else "left"
        table.add_column(name, justify=side, width=widths[name], no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(safe(row[name]) for name in kept))
    return table


def _left(width: int, widths: dict[str, int], fixed: list[str]) -> int:
    """Characters left for the attack beside the other columns, two spaces between each."""
    return width - sum(widths[name] + 2 for name in fixed)


def _row(cell: StoredCell) -> dict[str, str]:
    best, name, short = cell.result.best, cell.measured.subject_name, str(cell.config["model"])[:8]
    if name is not None:
        name = set_cell_size(shown(name), 24).rstrip()
    return {
        "cell": cell.key[:8],
        "model": short if name is None else f"{name} {short}",
        "attack": cell.attack.label,
        "seed": str(cell.attack.recipe.seed),
        "outcome": _outcome(cell),
        "score": number(best.score if best else None),
        "step": number(cell.result.step),
        "utility": number(best.utility if best else None),
        "seconds": number(cell.measured.seconds),
    }


def sentence(cell: StoredCell) -> str:
    """One run in words: how it ended, and the best that was reached while the model was still useful."""
    result, name = cell.result, _utility(cell)
    if not result.counts:
        return f"{result.outcome.value.capitalize()}: {result.note.rstrip('.')}. This says nothing about the defence."
    start, best, end = result.evaluations[0], result.best, result.evaluations[-1]
    ended = f"at step {result.step}" if result.is_broken else f"after {counted(result.steps, 'step')}"
    text = f"{_outcome(cell).capitalize()} {ended}: at the end, score {start.score:.3f} -> {end.score:.3f}"
    text += f" and {name} {number(start.utility)} -> {number(end.utility)}"
    if best is not None and best != end:
        text += f"; the best within the utility budget was score {best.score:.3f} at step {best.step}"
        text += f", with {name} {number(best.utility)}"
    if result.diverged_at is not None:
        text += f"; utility was lost at step {result.diverged_at}"
        text += " and regained later" if result.recovered else " and not regained"
    return text + "."


def plot_run(cell: StoredCell, path: Path) -> None:
    """Score and utility of one run against its steps, as a PNG."""
    from specdef.report import plots

    result, name = cell.result, cell.measured.subject_name
    plots.plot_run(
        [(point.step, point.score, point.utility) for point in result.evaluations],
        path,
        title=f"{shown(name or cell.config['model'][:8])}: {cell.attack.label}",
        utility=_utility(cell),
        best=None if result.best is None else result.best.step,
        lost=result.diverged_at,
    )


def _outcome(cell: StoredCell) -> str:
    """How a run ended, in few words."""
    from specdef.report.phrases import NOT_REACHED
    from specdef.report.run_table import outcome_words

    return NOT_REACHED if outcome_words(cell) == NOT_REACHED else cell.result.outcome.value


def _utility(cell: StoredCell) -> str:
    from specdef.certify.cell import CellConfig

    return CellConfig.from_wire(cell.config).utility
