"""A study as a picture: one coloured, worded square per entry."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

from specdef.certify.study_results import Entry, StudyResults, Table
from specdef.core.text import counted
from specdef.report import phrases
from specdef.report.form import plain
from specdef.report.kind import COLORS, LIGHT_TEXT, Kind
from specdef.report.plots import load_pyplot
from specdef.report.study_view import grid, kind_of, table_title

WIDEST = 12
"""Letters of a column's name on one line."""


def draw_study(results: StudyResults, path: Path) -> None:
    """One grid for every model and task, below each other.

    Args:
        results: with at least one table that has attacks.
        path: the PNG to write.
    """
    pyplot = load_pyplot()
    shapes = [grid(table, results.rows) for table in results.tables]
    heights = [1.6 + 0.62 * len(names) for _, names, _ in shapes]
    width = 3.2 + 1.25 * max(len(columns) for columns, _, _ in shapes)
    figure, places = pyplot.subplots(
        len(shapes), 1, figsize=(width, 0.7 + sum(heights)), height_ratios=heights, layout="constrained", squeeze=False
    )
    seen: set[Kind] = set()
    for axes, table in zip(places[:, 0], results.tables, strict=True):
        seen |= _draw(pyplot, axes, table, results.rows)
        if len(shapes) > 1:
            axes.set_title(plain(table_title(table)), fontsize=9, loc="left")
    figure.suptitle(fill(plain(results.title), int(10 * width)), fontsize=10)
    handles = [
        pyplot.Rectangle((0, 0), 1, 1, color=COLORS[kind], label=phrases.in_legend(kind))
        for kind in COLORS
        if kind in seen
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _draw(pyplot: Any, axes: Any, table: Table, rows: str) -> set[Kind]:
    columns, names, lines = grid(table, rows)
    for y, line in enumerate(lines):
        for x, entry in enumerate(line):
            kind = kind_of(entry)
            axes.add_patch(pyplot.Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=COLORS[kind], lw=0))
            color = "white" if kind in LIGHT_TEXT else "black"
            axes.text(
                x, y, f"{phrases.SHORT[kind]}\n{_detail(entry)}", ha="center", va="center", fontsize=8, color=color
            )
    axes.set_xticks(range(len(columns)), [_wrapped(name) for name in columns], fontsize=8)
    axes.set_yticks(range(len(names)), [fill(plain(name), 28) for name in names], fontsize=8)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return {kind_of(entry) for line in lines for entry in line}


def _wrapped(name: str) -> str:
    return "\n".join(fill(part, WIDEST) for part in plain(name).split(", "))


def _detail(entry: Entry) -> str:
    if entry.steps is not None:
        return counted(round(entry.steps), "step")
    return "" if entry.score is None else f"score {entry.score:.2f}"
