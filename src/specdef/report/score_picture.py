"""Score against step: a panel an attack, a colour a model, a line a seed and a thick one for the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from specdef.certify.result import StoredCell
from specdef.certify.statistics import mean
from specdef.report.form import number, plain
from specdef.report.plots import load_pyplot

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4a4a4a")
"""From the palette of Okabe and Ito."""
STYLES = ("-", "--", "-.", ":")
STACKED, ACROSS = 3, 2
"""So many panels stand above each other; more of them in so many columns: words stay readable at 400 pixels."""
Panel = Mapping[str, Sequence[StoredCell]]
"""What a line's name is -> its cells, a seed each."""


def draw_scores(panels: Mapping[str, Panel], path: Path, *, title: str = "") -> None:
    """Score by step. A ring marks where the target was reached within the utility budget.

    Args:
        panels: heading -> lines.
        path: the file to write; its ending says whether it is a PNG, SVG or PDF.
        title: above all panels.
    """
    pyplot = load_pyplot()
    across = 1 if len(panels) <= STACKED else ACROSS
    down = -(-len(panels) // across)
    size = (0.8 + (4.6 if across == 1 else 3.4 * across), 1.1 + 2.7 * down)
    figure, places = pyplot.subplots(
        down, across, figsize=size, layout="constrained", squeeze=False, sharex=True, sharey=True
    )
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    looks = {name: (COLORS[n % len(COLORS)], STYLES[n // len(COLORS) % len(STYLES)]) for n, name in enumerate(names)}
    for axes in places.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (heading, lines) in zip(places.flat, panels.items(), strict=False):
        axes.set_title(fill(plain(heading), 44), fontsize=10, parse_math=False)
        for name, cells in lines.items():
            _lines(axes, cells, *looks[name])
        _target(axes, [cell for cells in lines.values() for cell in cells])
        axes.set(ylim=(-0.03, 1.06))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
    for axes in list(places.flat)[max(0, len(panels) - across) : len(panels)]:
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
    figure.supylabel("score on the task", fontsize=10)
    handles = [
        pyplot.Line2D([], [], color=color, ls=style, lw=2, label=fill(plain(name), 40))
        for name, (color, style) in looks.items()
    ]
    handles.append(
        pyplot.Line2D([], [], color="black", ls="none", marker="o", mfc="none", label="target reached in budget")
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), fontsize=9, frameon=False)
    if title:
        figure.suptitle(fill(plain(title), int(11 * size[0])), fontsize=10, parse_math=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _lines(axes: Any, cells: Sequence[StoredCell], color: str, style: str) -> None:
    curves = [{point.step: point.score for point in cell.result.evaluations} for cell in cells]
    alone = len(curves) == 1
    for cell, curve in zip(cells, curves, strict=True):
        axes.plot(list(curve), list(curve.values()), color=color, ls=style, lw=1.6 if alone else 0.7, alpha=0.9)
        if cell.result.is_broken and cell.result.step in curve:
            axes.plot([cell.result.step], [curve[cell.result.step]], "o", mfc="none", ms=7, color=color)
    if alone:
        return
    shared = [step for step in curves[0] if all(step in curve for curve in curves)] if curves else []
    middle = [mean([curve[step] for curve in curves]) for step in shared]
    axes.plot(shared, middle, color=color, ls=style, lw=2.2)


def _target(axes: Any, cells: Sequence[StoredCell]) -> None:
    targets = {cell.measured.target for cell in cells} - {None}
    if len(targets) == 1:
        target = targets.pop()
        assert target is not None
        axes.axhline(target, color="#222222", lw=1)
        across = axes.get_yaxis_transform()
        axes.text(0.99, target, f"target {number(target)} ", transform=across, ha="right", va="bottom", fontsize=9)
