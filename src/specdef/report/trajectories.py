"""Score against utility, one line per cell of a certificate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from specdef.certify.certificate import Certificate
from specdef.certify.certified_cell import CertifiedCell
from specdef.certify.result import StoredCell
from specdef.core.text import counted
from specdef.report import phrases
from specdef.report.entries import Entry, slowed_from
from specdef.report.form import number, plain, shortened
from specdef.report.kind import COLORS, Kind
from specdef.report.plots import load_pyplot

LINES = {
    Kind.BROKEN: "-",
    Kind.REGAINED: (0, (6, 1, 1, 1)),
    Kind.SLOWED: (0, (8, 2)),
    Kind.COLLAPSE: (0, (3, 1.5)),
    Kind.STALL: (0, (1, 1)),
}
FARTHEST = 1e4
"""Where lower utility is better, more than this many times the start is drawn at the edge."""
WIDE = 10.0
"""From this spread on utility is drawn on a logarithmic scale."""


def trajectories(certificate: Certificate, cells: Iterable[StoredCell], path: Path) -> None:
    """Score against utility, one line per cell; a star marks where the target was reached.

    Args:
        certificate: what the cells belong to.
        cells: their result files.
        path: the PNG to write.
    """
    rows = {row.cell: row for row in certificate.cells if row.attacks_task}
    found = [(rows[cell.key], cell) for cell in cells if cell.key in rows]
    pyplot = load_pyplot()
    name = shortened(plain(certificate.subject.name), 40)
    groups = {"undefended model": [pair for pair in found if pair[0].undefended]}
    groups |= {name: [pair for pair in found if not pair[0].undefended]}
    counts = [sum(row.undefended for row in rows.values()), sum(not row.undefended for row in rows.values())]
    if certificate.is_unlocked:
        groups, counts = {"undefended model": found}, [len(rows)]
    figure, panels = pyplot.subplots(
        len(groups), 1, figsize=(7.2, 4.6 * len(groups)), layout="constrained", squeeze=False
    )
    seen: set[Kind] = set()
    for axes, (title, pairs), count in zip(panels[:, 0], groups.items(), counts, strict=True):
        drawn = _draw(axes, certificate, pairs)
        seen |= set(drawn)
        left = f", {count - len(drawn)} not drawn" if count > len(drawn) else ""
        axes.set_title(f"{title}: {counted(len(drawn), 'cell')}{left}", fontsize=10, parse_math=False)
    handles = [
        pyplot.Line2D(
            [], [], color=COLORS[kind], ls=LINES[kind], lw=2, label=phrases.in_legend(kind).replace("\n", " ")
        )
        for kind in LINES
        if kind in seen
    ]
    black = {"color": "black", "ls": "none"}
    handles.append(pyplot.Line2D([], [], marker="*", ms=9, label="target reached within the budget", **black))
    beyond = "not finite" if certificate.utility.higher_is_better else f"beyond {FARTHEST:g} times, or not finite"
    handles.append(pyplot.Line2D([], [], marker="X", ms=5, label=f"{certificate.utility.name} {beyond}", **black))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False, handlelength=3.2)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _draw(axes: Any, certificate: Certificate, pairs: list[tuple[CertifiedCell, StoredCell]]) -> list[Kind]:
    """One panel; returns how the cells drawn ended."""
    target, utility = certificate.task.target, certificate.utility
    drawn: list[Kind] = []
    values = [value for value in (utility.limit, utility.reference) if value is not None]
    for row, cell in pairs:
        kind = Entry((row,), slowed_from(certificate, row.threat_model)).kind
        points = _points(certificate, cell)
        if kind in LINES and len(points) > 1:
            _line(axes, kind, points, row.step)
            drawn.append(kind)
            values += [value for _, value, _, _ in points]
    axes.axhline(target, color="#222222", lw=1)
    across = axes.get_yaxis_transform()
    axes.text(0.99, target, f"target {number(target)} ", transform=across, ha="right", va="bottom", fontsize=8)
    if utility.limit is not None:
        axes.axvline(utility.limit, color="#222222", lw=1, ls=":")
        along = axes.get_xaxis_transform()
        axes.text(utility.limit, 0.02, f" budget: {number(utility.limit)}", transform=along, fontsize=8)
    axes.set(ylabel="score", ylim=(-0.03, 1.06))
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low > 0 and high > WIDE * low:
        axes.set(xscale="log", xlim=(low / 1.4, high * 1.6))
    else:
        margin = 0.05 * (high - low) or 0.5
        axes.set_xlim(low - margin, high + margin)
    axes.set_xlabel(utility.unit)
    axes.grid(alpha=0.25)
    return drawn


def _points(certificate: Certificate, cell: StoredCell) -> list[tuple[int, float, float, bool]]:
    """Step, utility, score, and whether utility lies beyond what is drawn."""
    evaluations = cell.result.evaluations
    start = evaluations[0].utility if evaluations else math.inf
    if not math.isfinite(start):
        return []
    edge = 0.0 if certificate.utility.higher_is_better else FARTHEST * abs(start)
    found = []
    for point in evaluations:
        beyond = not math.isfinite(point.utility) or (not certificate.utility.higher_is_better and point.utility > edge)
        found.append((point.step, edge if beyond else point.utility, point.score, beyond))
    return found


def _line(axes: Any, kind: Kind, points: list[tuple[int, float, float, bool]], reached: int | None) -> None:
    style = {"color": COLORS[kind], "zorder": 3 if kind in (Kind.BROKEN, Kind.REGAINED, Kind.SLOWED) else 2}
    values, scores = [value for _, value, _, _ in points], [score for _, _, score, _ in points]
    axes.plot(values, scores, ls=LINES[kind], lw=1.3, marker=".", ms=4, **style)
    for step, value, score, beyond in points:
        if step == reached:
            axes.plot([value], [score], marker="*", ms=11, mec="black", mew=0.5, **style)
        elif beyond:
            axes.plot([value], [score], marker="X", ms=6, mec="black", mew=0.5, clip_on=False, **style)
