"""The page of a folder of attacks: every run in a table, and score against step. Reads results, never changes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from specdef.certify.result import StoredCell
from specdef.certify.store import stored_cells
from specdef.core.folders import scratch_folder
from specdef.report.classes import class_tables
from specdef.report.files import write_bytes
from specdef.report.html import document, figure, grid, linked, row, section, text
from specdef.report.run_table import look_of, run_texts
from specdef.report.score_picture import draw_scores

PICTURE, PAGE = "runs.png", "index.html"
MOST = 24
"""Runs drawn in one picture."""
SHOWN = ("model", "attack", "lr", "seed", "step", "best score", "score at the end", "utility at the end", "seconds")


def write_runs(folder: Path | str) -> list[Path]:
    """Write runs.png and index.html into a folder of attacks.

    Args:
        folder: holds finished attacks.

    Returns:
        The files written. Everything is made before the first is written.

    Raises:
        SpecdefError: there are no results, one cannot be read, matplotlib is missing, or the disk is full.
    """
    folder = Path(folder)
    return write_runs_of(stored_cells(folder), folder)


def write_runs_of(cells: Sequence[StoredCell], folder: Path) -> list[Path]:
    """`write_runs` for cells that were read."""
    with scratch_folder(None) as temporary:
        draw_runs(cells, temporary / PICTURE)
        picture = (temporary / PICTURE).read_bytes()
    content = {PICTURE: picture, PAGE: runs_page(cells, picture).encode()}
    for name, data in content.items():
        write_bytes(folder / name, data)
    return [folder / name for name in content]


def draw_runs(cells: Sequence[StoredCell], path: Path) -> None:
    """Score against step: a panel for every model, a colour for every attack, a line for every seed.

    Args:
        cells: the latest `MOST` that were measured at all are drawn.
        path: the PNG, SVG or PDF to write.
    """
    panels: dict[str, dict[str, list[StoredCell]]] = {}
    for cell in [cell for cell in cells if cell.result.evaluations][-MOST:]:
        found = run_texts(cell)
        panels.setdefault(found["model"], {}).setdefault(cell.attack.label, []).append(cell)
    draw_scores(panels or {"no run was measured": {}}, path)


def runs_page(cells: Sequence[StoredCell], picture: bytes) -> str:
    """The page as text."""
    latest = run_texts(cells[-1])
    about = "".join(
        f"<p>{text(name.capitalize())}: {text(latest[name])}.</p>"
        for name in ("task", "train file", "eval file", "target")
        if latest[name] != "—"
    )
    drawn = "Each line is a run; the thick one is the mean over seeds. A ring marks where the target was reached."
    sections = [
        section("Score against step", figure(picture, "Score on the task by step", drawn)),
        section("Every run", _table(cells)),
    ]
    by_class = [(cell, found) for cell in cells if (found := class_tables(cell))]
    if by_class:
        sections.append(section("By class", "\n".join(_details(cell, found) for cell, found in by_class)))
    return document("Attacks", about, sections)


def _details(cell: StoredCell, content: str) -> str:
    name = f"{cell.attack.label}, seed {cell.attack.recipe.seed}, cell {cell.key[:8]}"
    return f"<details><summary>{text(name)}</summary>\n{content}</details>"


def _table(cells: Sequence[StoredCell]) -> str:
    rows = []
    for cell in cells:
        found = run_texts(cell)
        outcome = linked(f"cells/{cell.key}.json", found["outcome"])
        values = [f"<td>{text(found[name])}</td>" for name in SHOWN[1:]]
        note = f"<small>{text(cell.result.note)}</small>" if cell.result.note else ""
        rows.append(row(found["model"], [f'<td class="{look_of(cell)}">{outcome}{note}</td>', *values]))
    names = ("model", "outcome", *SHOWN[1:])
    return grid(names, rows, "One attack a row, oldest first. An outcome leads to its result file.", look="paper")
