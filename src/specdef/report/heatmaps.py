"""Pictures of certificates: outcome by learning rate and multiplier, and score against utility."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from specdef.certify.result import StoredCell
from specdef.errors import SpecdefError
from specdef.report.entries import (
    LOST_ALL,
    LOST_SOME,
    REGAINED,
    UNLOCKED,
    Entry,
    Kind,
    Row,
    attack_name,
    entries_of,
    number,
    ordinary_attack,
    power,
    rate,
    slowed_from,
    spread,
)
from specdef.report.plots import load_pyplot
from specdef.report.sentences import plain, shortened

COLORS = {
    Kind.BROKEN: "#d55e00",
    Kind.REGAINED: "#cc79a7",
    Kind.SLOWED: "#f0c44c",
    Kind.COLLAPSE: "#0072b2",
    Kind.STALL: "#8fd0f5",
    Kind.INVALID: "#d0d0d0",
    Kind.CRASHED: "#4a4a4a",
}
"""From the palette of Okabe and Ito, told apart with every common colour blindness."""
SHORT = {
    Kind.BROKEN: "broken",
    Kind.REGAINED: "regained",
    Kind.SLOWED: "slowed",
    Kind.COLLAPSE: "collapse",
    Kind.STALL: "stall",
    Kind.INVALID: "invalid",
    Kind.CRASHED: "crashed",
}
LIGHT_TEXT = {Kind.COLLAPSE, Kind.CRASHED}
LINES = {
    Kind.BROKEN: "-",
    Kind.REGAINED: (0, (6, 1, 1, 1)),
    Kind.SLOWED: (0, (8, 2)),
    Kind.COLLAPSE: (0, (3, 1.5)),
    Kind.STALL: (0, (1, 1)),
}
MARKS = (
    f"{LOST_SOME} utility lost in some seeds",
    f"{LOST_ALL} utility lost in all seeds",
    f"{REGAINED} utility regained",
    "2/3: seeds that reached the target",
)
TICKS = (0.8, 1, 1.2, 1.5, 2, 3, 5, 10, 30, 100, 1000, 10000)
FARTHEST = 1e4
"""Perplexity ratios above this one are drawn at the right edge."""
Column = tuple[float, str, str]
"""Multiplier, method and the model's digest."""


def heat_map(certificates: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Outcome of full fine-tuning with AdamW, learning rate by multiplier; each cell also says it in words.

    Args:
        certificates: of one undefended model and task, each with its own multiplier or method.
        path: the PNG to write.

    Raises:
        SpecdefError: no certificates, or certificates that cannot be compared.
    """
    columns = _columns(certificates)
    names = sorted(columns)
    rates = sorted({entry.lr for entries in columns.values() for entry in entries})
    pyplot = load_pyplot()
    size = (1.2 + 1.3 * max(len(names), 3), 3.1 + 0.5 * max(len(rates), 2))
    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    for x, name in enumerate(names):
        for entry in columns[name]:
            _square(pyplot, axes, (x, rates.index(entry.lr)), entry, undefended=name[1] == UNLOCKED)
    if not names:
        axes.text(0, 0, "no such cells", ha="center", va="center")
    axes.set_xticks(range(len(names)), _column_labels(names), fontsize=9)
    axes.set_yticks(range(len(rates)), [rate(lr) for lr in rates])
    axes.set(xlim=(-0.5, max(len(names), 1) - 0.5), ylim=(-0.5, max(len(rates), 1) - 0.5))
    axes.set(xlabel="multiplier of the lock", ylabel="learning rate")
    axes.tick_params(length=0)
    axes.set_facecolor("#f7f7f7")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=COLORS[kind], label=_label(kind)) for kind in Kind]
    handles.append(pyplot.Rectangle((0, 0), 1, 1, facecolor="#f7f7f7", edgecolor="#999999", label="not tried"))
    handles += [pyplot.Rectangle((0, 0), 1, 1, alpha=0, label=text) for text in MARKS]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    axes.set_title(f"AdamW, all weights; target {number(certificates[0]['task']['target'])}", fontsize=10)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _columns(certificates: Sequence[Mapping[str, Any]]) -> dict[Column, list[Entry]]:
    """The entries of every multiplier; the cells of the undefended model are the first column."""
    if not certificates:
        raise SpecdefError("`certificates` must hold at least one certificate; got none. Certify a model first.")
    first = _common(certificates[0])
    rows: dict[Column, dict[str, Row]] = {}
    steps: dict[Column, float | None] = {}
    for certificate in certificates:
        if _common(certificate) != first:
            raise SpecdefError(
                "`certificates` must be of one undefended model, task and recipe; got "
                f"{plain(certificate['subject']['name'])} with others. Draw them apart."
            )
        ordinary = ordinary_attack(certificate)
        same = certificate["subject"]["digest"] == certificate["original"]["digest"]
        subject = certificate["subject"]
        locked = (float(certificate["multiplier"]), subject["method"], subject["digest"])
        for row in certificate["cells"]:
            if attack_name(row["attack"], row["lr"]) != ordinary:
                continue
            column = (1.0, UNLOCKED, "") if same or row["threat_model"] == UNLOCKED else locked
            rows.setdefault(column, {})[row["cell"]] = row
            steps[column] = None if column[1] == UNLOCKED else slowed_from(certificate, row["threat_model"])
    return {column: entries_of(found.values(), slowed_from=steps[column]) for column, found in rows.items()}


def _common(certificate: Mapping[str, Any]) -> tuple[Any, ...]:
    recipe = sorted((name, value) for name, value in certificate["recipe"].items() if name not in ("lr", "seed"))
    utility = certificate["utility"]
    return certificate["original"]["digest"], certificate["task"]["digest"], utility["factor"], recipe


def _column_labels(columns: Sequence[Column]) -> list[str]:
    """Multiplier and method; the digest's first digits where two models share both."""
    labels = ["unknown" if method == "unknown" else f"{power(alpha)}\n{method}" for alpha, method, _ in columns]
    shared = {text for text in labels if labels.count(text) > 1}
    return [
        f"{text}\n{plain(digest[:8])}" if text in shared else text
        for text, (_, _, digest) in zip(labels, columns, strict=True)
    ]


def _label(kind: Kind) -> str:
    words = {Kind.BROKEN: "broken (target reached)", Kind.REGAINED: "broken after utility was lost\nand regained"}
    return words.get(kind, str(kind.value))


def _square(pyplot: Any, axes: Any, at: tuple[int, int], entry: Entry, *, undefended: bool) -> None:
    (x, y), kind = at, entry.kind
    axes.add_patch(pyplot.Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=COLORS[kind], lw=0))
    first = "reached" if undefended and entry.broken else SHORT[kind]
    if entry.steps is not None:
        second = f"{spread(entry.steps, entry.steps_std, len(entry.broken))} steps"
    elif entry.valid and entry.score is not None:
        second = f"score {entry.score:.2g}"
    else:
        second = ""
    if 0 < len(entry.broken) < len(entry.rows):
        first += f" {len(entry.broken)}/{len(entry.rows)}"
    text = "\n".join(filter(None, [first + entry.marks, second]))
    axes.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if kind in LIGHT_TEXT else "black")


def trajectories(certificate: Mapping[str, Any], cells: Iterable[StoredCell], path: Path) -> None:
    """Score against utility, one line per cell; a star marks where the target was reached.

    Args:
        certificate: what the cells belong to.
        cells: their result files.
        path: the PNG to write.
    """
    rows = {row["cell"]: row for row in certificate["cells"]}
    shown = {cell.key: cell for cell in cells if cell.key in rows}
    pyplot = load_pyplot()
    groups = [UNLOCKED, "locked"]
    same = certificate["subject"]["digest"] == certificate["original"]["digest"]
    figure, panels = pyplot.subplots(
        1 if same else 2, 1, figsize=(7.2, 5.0 if same else 9.0), layout="constrained", squeeze=False
    )
    seen: set[Kind] = set()
    for axes, group in zip(panels[:, 0], groups, strict=False):
        keys = [key for key, row in rows.items() if same or (row["threat_model"] == UNLOCKED) == (group == UNLOCKED)]
        seen |= _draw(axes, certificate, group, [(rows[key], shown[key]) for key in keys if key in shown], len(keys))
    handles = [
        pyplot.Line2D([], [], color=COLORS[kind], ls=LINES[kind], lw=2, label=_label(kind).replace("\n", " "))
        for kind in LINES
        if kind in seen
    ]
    black = {"color": "black", "ls": "none"}
    handles.append(pyplot.Line2D([], [], marker="*", ms=9, label="target reached within the budget", **black))
    handles.append(pyplot.Line2D([], [], marker=">", ms=5, label=f"ratio above {FARTHEST:g}, or not finite", **black))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False, handlelength=3.2)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _draw(
    axes: Any, certificate: Mapping[str, Any], group: str, found: list[tuple[Row, StoredCell]], number_of_cells: int
) -> set[Kind]:
    """One panel; returns the outcomes drawn."""
    target, factor = certificate["task"]["target"], certificate["utility"]["factor"]
    drawn: list[Kind] = []
    farthest = factor
    for row, cell in found:
        kind = Entry(row["attack"], row["lr"], (row,), slowed_from(certificate, group)).kind
        points = _points(cell)
        if kind in LINES and len(points) > 1:
            _line(axes, kind, points, row["step"])
            drawn.append(kind)
            farthest = max(farthest, *(ratio for _, ratio, _ in points))
    axes.axhline(target, color="#222222", lw=1)
    axes.axvline(factor, color="#222222", lw=1, ls=":")
    axes.text(
        0.99,
        target,
        f"target {number(target)} ",
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="bottom",
        fontsize=8,
    )
    axes.text(
        factor, 0.02, f" utility budget: {number(factor)} times", transform=axes.get_xaxis_transform(), fontsize=8
    )
    axes.set(ylabel="score", xscale="log", xlim=(0.7, farthest * 1.6), ylim=(-0.03, 1.06))
    ticks = [tick for tick in TICKS if tick < farthest * 1.6 and (farthest < 30 or tick not in (0.8, 1.2, 1.5, 3, 5))]
    axes.set_xticks(ticks, [number(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("perplexity of general text, times that at step 0")
    name = shortened(plain(certificate["subject"]["name"]), 40)
    title = "undefended model" if group == UNLOCKED else name
    left = number_of_cells - len(drawn)
    axes.set_title(
        title + f": {len(drawn)} cells" + (f", {left} not drawn" if left else ""), fontsize=10, parse_math=False
    )
    axes.grid(alpha=0.25)
    return set(drawn)


def _points(cell: StoredCell) -> list[tuple[int, float, float]]:
    """Step, perplexity ratio and score of every evaluation."""
    evaluations = cell.result.evaluations
    start = evaluations[0].utility if evaluations else math.inf
    if not math.isfinite(start) or not start:
        return []
    return [(e.step, min(e.utility / start, FARTHEST), e.score) for e in evaluations]


def _line(axes: Any, kind: Kind, points: list[tuple[int, float, float]], reached: int | None) -> None:
    style = {"color": COLORS[kind], "zorder": 3 if kind in (Kind.BROKEN, Kind.REGAINED, Kind.SLOWED) else 2}
    axes.plot([r for _, r, _ in points], [s for _, _, s in points], ls=LINES[kind], lw=1.3, marker=".", ms=4, **style)
    for step, ratio, score in points:
        if step == reached:
            axes.plot([ratio], [score], marker="*", ms=11, mec="black", mew=0.5, **style)
        elif ratio >= FARTHEST:
            axes.plot([ratio], [score], marker=">", ms=6, mec="black", mew=0.5, clip_on=False, **style)
