"""runs: what finished attacks came to, a row each."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from specdef.cli.options import Json, Results
from specdef.cli.render import number, out_console, print_json, safe, say

if TYPE_CHECKING:
    from specdef.certify.store import StoredCell

COLUMNS = ("cell", "model", "attack", "seed", "outcome", "score", "step", "perplexity", "seconds")
"""Where the terminal is narrow, the last ones are left out."""


def runs(folder: Results, json_: Json = False) -> None:
    """List every finished attack in a results folder.

    Example: specdef runs results
    """
    from specdef.certify.store import stored_cells

    cells = stored_cells(folder)
    if json_:
        print_json([asdict(cell) for cell in cells])
        return
    rows = [_row(cell) for cell in cells]
    shown = list(COLUMNS)
    for name in ("model", "seed"):
        if len(rows) > 1 and len({row[name] for row in rows}) == 1:
            say(f"{name}: {rows[0][name]}")
            shown.remove(name)
    out_console.print(_table(rows, _fitting(rows, shown, out_console.width)))


def _fitting(rows: list[dict[str, str]], shown: list[str], width: int) -> list[str]:
    """The columns that fit beside an attack column of at least 24 characters; the last give way first."""
    longest = {name: max(len(name), *(len(row[name]) for row in rows)) for name in shown}
    fixed = [name for name in shown if name != "attack"]
    while sum(longest[name] + 2 for name in fixed) + min(longest["attack"], 24) > width and len(fixed) > 3:
        fixed.pop()
    return [name for name in shown if name in (*fixed, "attack")]


def _table(rows: list[dict[str, str]], shown: list[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in shown:
        right = name in ("seed", "score", "step", "seconds")
        table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(safe(row[name]) for name in shown))
    return table


def _row(cell: StoredCell) -> dict[str, str]:
    from specdef.certify.verdict import attack_of

    best = cell.result["best"] or {}
    name, short = cell.measured.get("subject_name"), str(cell.config["model"])[:8]
    return {
        "cell": cell.key[:8],
        "model": short if name is None else f"{name} {short}",
        "attack": attack_of(cell).label,
        "seed": str(cell.attack["recipe"]["seed"]),
        "outcome": str(cell.result["outcome"]),
        "score": number(best.get("score")),
        "step": number(cell.result["step"]),
        "perplexity": number(best.get("perplexity")),
        "seconds": number(cell.measured["seconds"]),
    }


def sentence(cell: StoredCell) -> str:
    """One run in words: how it ended, and the best that was reached while the model was still useful."""
    result = cell.result
    if result["outcome"] in ("invalid", "crashed"):
        return f"{result['outcome'].capitalize()}: {result['note'].rstrip('.')}. This says nothing about the defence."
    start, best, end = result["evaluations"][0], result["best"], result["evaluations"][-1]
    if result["outcome"] == "broken":
        text = f"Broken at step {result['step']}"
    else:
        text = result["outcome"].capitalize() + f" after {result['steps']} steps"
    text += f": score {start['score']:.3f} -> {end['score']:.3f}"
    text += f", perplexity {number(start['perplexity'])} -> {_lost(end['perplexity'])} at the end"
    if best != end:
        text += f"; best score within the utility budget {best['score']:.3f} at step {best['step']}"
        text += f" (perplexity {_lost(best['perplexity'])})"
    if result["diverged_at"] is not None:
        text += f"; utility lost at step {result['diverged_at']}"
        text += ", regained later" if result["recovered"] else ", not regained"
    return text + "."


def _lost(perplexity: float | None) -> str:
    return "infinite" if perplexity is None else number(perplexity)


def plot_run(cell: StoredCell, path: Path) -> None:
    """Score and utility of one run against its steps, as a PNG."""
    from specdef.certify.verdict import attack_of
    from specdef.report.plots import plot_curves

    label = attack_of(cell).label
    points = [
        (p["step"], p["score"], math.nan if p["perplexity"] is None else p["perplexity"])
        for p in cell.result["evaluations"]
    ]
    plot_curves({label: points}, path, title=sentence(cell), left_label="score on the task")
