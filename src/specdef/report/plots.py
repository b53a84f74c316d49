"""Plots. The one file that imports matplotlib."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from specdef.analysis.inspect import InspectReport
from specdef.errors import SpecdefError

if TYPE_CHECKING:
    from specdef.analysis.curvature.measure import CurvatureReport

BLUE, RED, GREY = "#2b6cb0", "#c53030", "#718096"


STACKED = (5.2, 5.8)
"""Inches of two panels above each other, whose words can be read at 400 pixels too."""
PICTURES = (".png", ".svg", ".pdf")


def refuse_plot_path(path: Path) -> None:
    """Raise SpecdefError unless plots can be drawn and `path` is a PNG, SVG or PDF in a folder that exists."""
    if path.suffix.lower() not in PICTURES:
        raise SpecdefError(f"`plot` must be a file ending in {', '.join(PICTURES)}; got {path}.")
    if not path.resolve().parent.is_dir():
        raise SpecdefError(f"`plot` must be in a folder that exists; {path.parent} does not. Create it first.")
    require_matplotlib()


def plot_inspection(report: InspectReport, path: Path) -> None:
    """Top singular value of every matrix by layer, and the largest opposite channel deviation of every pair.

    Args:
        report: what `inspect_model` measured.
        path: the PNG to write.
    """
    pyplot = load_pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    _plot_spectra(left, report)
    _plot_scales(right, report)
    figure.suptitle(f"{report.model}: {report.verdict.sentence}", fontsize=10, wrap=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _plot_spectra(axes: Any, report: InspectReport) -> None:
    if not report.tensors:
        axes.text(0.5, 0.5, "spectra not computed", ha="center", transform=axes.transAxes, color=GREY)
        axes.set_axis_off()
        return
    by_component: dict[str, dict[int, float]] = {}
    for tensor in report.tensors:
        if tensor.layer is not None:
            layers = by_component.setdefault(tensor.component, {})
            layers[tensor.layer] = max(tensor.top[0], layers.get(tensor.layer, 0.0))
    for component, points in sorted(by_component.items()):
        axes.plot(*zip(*sorted(points.items()), strict=True), marker=".", lw=1, label=component)
    axes.set(xlabel="layer", ylabel=r"largest singular value $\sigma_1(W)$", yscale="log", title="Spectra")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if by_component:
        axes.legend(fontsize=7, ncols=2)
    axes.grid(alpha=0.3)


def _plot_scales(axes: Any, report: InspectReport) -> None:
    kinds = sorted({pair.kind for pair in report.pairs})
    for number, kind in enumerate(kinds):
        group = [pair for pair in report.pairs if pair.kind == kind]
        x = [(-1 if pair.layer is None else pair.layer) + 0.15 * number for pair in group]
        axes.scatter(x, [pair.largest for pair in group], s=14, label=kind)
    axes.set(xlabel="layer", ylabel="powers of two", title="Largest opposite channel deviation")
    axes.set_ylim(bottom=0, top=max(6.0, *(1.1 * pair.largest for pair in report.pairs)))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)


def plot_curves(
    curves: Mapping[str, Sequence[tuple[int, float, float]]],
    path: Path,
    *,
    title: str,
    first_label: str,
    second_label: str,
) -> None:
    """Two quantities by step, one line per model; the second on a logarithmic axis where it spans a lot.

    Args:
        curves: label -> (step, first, second) at each evaluation; values that are not finite end a line.
        path: the PNG to write.
        title: shown above both panels.
        first_label: name of the first, a share.
        second_label: name of the second.
    """
    pyplot = load_pyplot()
    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=STACKED, layout="constrained", sharex=True)
    for (label, points), color in zip(curves.items(), (BLUE, RED, GREY), strict=False):
        for axes, column in ((upper, 1), (lower, 2)):
            finite = [(p[0], p[column]) for p in points if math.isfinite(p[column])]
            axes.plot(*zip(*finite, strict=True), marker="o", ms=4, color=color, label=label)
    upper.set(ylabel=first_label, ylim=(-0.02, 1.02))
    scale = _scale([point[2] for points in curves.values() for point in points])
    lower.set(xlabel="step", ylabel=second_label, yscale=scale)
    lower.xaxis.get_major_locator().set_params(integer=True)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    handles, labels = upper.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)))  # no curve lies under it
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def plot_images(rows: Mapping[str, Sequence[tuple[Any, str]]], path: Path) -> None:
    """Small grey images side by side, a row a kind.

    Args:
        rows: name of the kind -> (pixels [height, width] from 0 to 1, what stands below), as many in each.
        path: the PNG to write.
    """
    pyplot = load_pyplot()
    wide = max(map(len, rows.values()))
    figure, grid = pyplot.subplots(
        len(rows), wide, figsize=(wide, 1.5 * len(rows)), layout="constrained", squeeze=False
    )
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        for axes, (pixels, below) in zip(line, images, strict=True):
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(below, fontsize=8)
        line[0].set_title(name, loc="left", fontsize=10)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def plot_run(
    points: Sequence[tuple[int, float, float]],
    path: Path,
    *,
    title: str,
    utility: str,
    best: int | None = None,
    lost: int | None = None,
) -> None:
    """Score and utility of one attack by step.

    Args:
        points: (step, score, utility) at each evaluation; a utility that is not finite is a cross at the edge.
        path: the PNG to write.
        title: shown above both panels; a long one is cut.
        utility: name of the utility.
        best: step of the best score within the utility budget; marked.
        lost: step at which utility was lost; marked.
    """
    pyplot = load_pyplot()
    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=STACKED, layout="constrained", sharex=True)
    steps = [step for step, _, _ in points]
    upper.plot(steps, [score for _, score, _ in points], marker="o", ms=4, color=BLUE)
    finite = [(step, value) for step, _, value in points if math.isfinite(value)]
    if finite:
        lower.plot(*zip(*finite, strict=True), marker="o", ms=4, color=BLUE)
    gone = [step for step, _, value in points if not math.isfinite(value)]
    top = lower.get_xaxis_transform()
    lower.plot(gone, [0.97] * len(gone), "x", color=RED, transform=top, label="not finite" if gone else None)
    for step, color, label in ((best, GREY, "best within the budget"), (lost, RED, "utility lost")):
        if step is not None:
            for axes in (upper, lower):
                axes.axvline(step, color=color, lw=1, ls="--", label=label)
    upper.set(ylabel="score on the task", ylim=(-0.02, 1.02))
    lower.set(xlabel="step", ylabel=utility, yscale=_scale([value for _, value in finite]))
    for axes in (upper, lower):
        axes.set_xlim(-0.02 * max(1, steps[-1]), 1.02 * max(1, steps[-1]))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    figure.suptitle(fill(title if len(title) <= 130 else title[:129] + "…", 64), fontsize=10)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _scale(values: Sequence[float]) -> str:
    """Of an axis: logarithmic where finite values lie more than ten times apart and go beyond 1, as no share does."""
    found = [value for value in values if math.isfinite(value)]
    return "log" if found and min(found) > 0 and max(found) > max(1.0, 10 * min(found)) else "linear"


def plot_density(report: CurvatureReport, path: Path) -> None:
    """The spectral density of a curvature on a logarithmic scale, its extreme eigenvalues marked.

    Args:
        report: what `measure_curvature` measured, with a density.
        path: the PNG to write.
    """
    assert report.density is not None
    pyplot = load_pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
    grid, density = report.density
    axes.semilogy(grid, [max(value, 1e-12) for value in density], color=BLUE, lw=1.2)
    for entry in (*report.largest, *report.smallest):
        axes.axvline(entry.value, color=RED, lw=0.8, ls="--")
    peak = max(density)
    axes.set(xlabel="eigenvalue", ylabel="density", ylim=(peak * 1e-8, peak * 3))
    axes.set_title(f"{report.kind} of {Path(report.model).name}: sigma_1 = {report.sigma_1:.4g}", fontsize=10)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def require_matplotlib() -> None:
    """Raise SpecdefError when plots cannot be drawn."""
    if not can_plot():
        raise SpecdefError("Plots need matplotlib, which is not installed. Run `pip install specdef[plot]`.")


def load_pyplot() -> Any:
    """matplotlib's pyplot, drawing into files.

    Raises:
        SpecdefError: it is not installed.
    """
    require_matplotlib()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
