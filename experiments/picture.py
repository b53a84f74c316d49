"""A table of locks and attacks as a picture: one coloured, worded square per entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from specdef.report.entries import Kind
from specdef.report.heatmaps import COLORS, LIGHT_TEXT, SHORT
from specdef.report.plots import _pyplot


def draw_grid(title: str, rows: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], path: Path) -> None:
    """Locks down, attacks across, coloured by outcome.

    Args:
        title: above the picture.
        rows: label of a lock, and its entries as in the results' JSON.
        path: the PNG to write.
    """
    pyplot = _pyplot()
    attacks = [entry["attack"] for entry in rows[0][1]]
    figure, axes = pyplot.subplots(figsize=(3.2 + 1.25 * len(attacks), 1.9 + 0.62 * len(rows)), layout="constrained")
    seen: set[Kind] = set()
    for y, (_, entries) in enumerate(rows):
        for x, entry in enumerate(entries):
            kind = Kind(entry["verdict"]) if entry["score"] is not None else Kind.INVALID
            seen.add(kind)
            axes.add_patch(pyplot.Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=COLORS[kind], lw=0))
            detail = f"{entry['steps']:.0f} steps" if entry["steps"] is not None else f"score {entry['score'] or 0:.2f}"
            color = "white" if kind in LIGHT_TEXT else "black"
            axes.text(x, y, f"{SHORT[kind]}\n{detail}", ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(len(attacks)), [attack.replace(", ", "\n") for attack in attacks], fontsize=8)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axes.set(xlim=(-0.5, len(attacks) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle(fill(title, int(10 * figure.get_figwidth())), fontsize=10)
    handles = [
        pyplot.Rectangle((0, 0), 1, 1, color=COLORS[kind], label=str(kind.value)) for kind in Kind if kind in seen
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
