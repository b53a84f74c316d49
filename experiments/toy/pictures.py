"""The toy's figures, drawn from stored results; only the Hessians are computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.toy import hessians
from experiments.toy.network import spirals
from experiments.toy.tables import rows_of_rates
from specdef.report.plots import load_pyplot

COLORS = {
    "none": "#000000",
    "identity C": "#8a8a8a",
    "inject 10": "#9ecae1",
    "inject 100": "#4292c6",
    "inject 1000": "#084594",
    "fold 2^3": "#fdae6b",
    "fold 2^7": "#e6550d",
    "fold 2^10": "#a63603",
}
MARKS = {"none": "o", "identity C": "s", "inject": "^", "fold": "v"}
SHOWN = ("none", "identity C", "inject 1000", "fold 2^10")


def learning_rates(stored: dict[str, Any], path: Path) -> None:
    """Lowest loss against the learning rate: figure 10's claim, over every rate."""
    pyplot = load_pyplot()
    names = ("GD", "Adam", "AdaHessian, exact diagonal")
    figure, panels = pyplot.subplots(1, 3, figsize=(14, 4.6), layout="constrained", sharey=True)
    for axes, name in zip(panels, names, strict=True):
        plan = stored["plans"][name]
        low, high = plan["ordinary"]["lr"]
        axes.axvspan(low, high, color="#f3efe2", zorder=0)
        for lock, row in plan["locks"].items():
            by_rate: dict[float, float] = {}
            for cell in row["cells"]:
                lr = cell["settings"]["lr"]
                by_rate[lr] = min(cell["mean_loss"], by_rate.get(lr, np.inf))
            axes.plot(*zip(*sorted(by_rate.items()), strict=True), color=COLORS[lock], **_mark(lock), ms=4, lw=1.3)
        axes.set(xscale="log", yscale="log", xlabel="learning rate", title=f"{name}, {plan['steps']} steps")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("lowest training loss, mean of 5 seeds")
    _legend(pyplot, figure, COLORS, 9, extra=[pyplot.Rectangle((0, 0), 1, 1, color="#f3efe2", label="ordinary window")])
    _save(pyplot, figure, path)


def dynamics(stored: dict[str, Any], path: Path) -> None:
    """Loss by step at each optimizer's best settings, inside the ordinary window and over the whole grid."""
    pyplot = load_pyplot()
    plans = {name: plan for name, plan in stored["plans"].items() if "none" in plan["locks"]}
    figure, panels = pyplot.subplots(3, 3, figsize=(13, 10), layout="constrained", sharey=True)
    for axes, (name, plan) in zip(panels.flat, plans.items(), strict=True):
        for lock in SHOWN:
            for key, style in (("ordinary", "--"), ("best", "-")):
                curve = plan["locks"][lock][key]["curve"]
                x = np.linspace(0, plan["steps"], len(curve))
                axes.plot(x, np.maximum(curve, 1e-9), ls=style, color=COLORS[lock], lw=1.4 if key == "best" else 1.1)
        axes.set(yscale="log", ylim=(1e-9, 20), title=name, xlabel="step")
        axes.grid(alpha=0.3)
    for axes in panels[:, 0]:
        axes.set_ylabel("loss, mean of 5 seeds")
    lines = [("best in the ordinary window", "--"), ("best of the whole grid", "-")]
    _legend(pyplot, figure, SHOWN, 6, extra=[pyplot.Line2D([], [], color="black", ls=s, label=t) for t, s in lines])
    _save(pyplot, figure, path)


def heat_maps(path: Path) -> None:
    """Figure 11: |H|, entry by entry; lines between layers."""
    pyplot = load_pyplot()
    matrices = hessians.matrices(spirals())
    figure, panels = pyplot.subplots(2, 2, figsize=(10.5, 9.6), layout="constrained")
    for axes, lock in zip(panels.flat, hessians.SHOWN, strict=True):
        values = matrices[lock.label].abs().clamp(min=1e-7).numpy()
        image = axes.imshow(values, norm="log", vmin=1e-6, vmax=1e4, cmap="magma")
        edges = np.cumsum([layer.size for layer in lock.stack.layers])
        for edge in edges[:-1]:
            axes.axhline(edge - 0.5, color="white", lw=0.6)
            axes.axvline(edge - 0.5, color="white", lw=0.6)
        names = ["W1, b1", "W2", "C, b2", "W3, b3"] if lock.method == "inject" else ["W1, b1", "W2, b2", "W3, b3"]
        centres = (np.concatenate([[0], edges[:-1]]) + edges) / 2 - 0.5
        axes.set_xticks(centres, names, fontsize=8)
        axes.set_yticks(centres, names, fontsize=8)
        axes.set_title(lock.label, fontsize=11)
    figure.colorbar(image, ax=panels, label="absolute entry of the loss Hessian at the start, seed 0", shrink=0.8)
    _save(pyplot, figure, path)


def spectra(path: Path) -> None:
    """Figures 11 and 12: eigenvalues by lock, by the number of directions, by place."""
    pyplot = load_pyplot()
    data = spirals()
    figure, panels = pyplot.subplots(2, 2, figsize=(12, 8), layout="constrained")
    before = {
        lock.label: np.linalg.eigvalsh(matrix.numpy())
        for lock, matrix in zip(hessians.SHOWN, hessians.matrices(data).values(), strict=True)
    }
    _spectrum(panels[0, 0], before, COLORS)
    panels[0, 0].set_title("by lock, seed 0")
    for axes, (name, group) in zip(panels.flat[1:], hessians.variants(data).items(), strict=True):
        shades = dict(zip(group, ("#c6b5e0", "#8d6cc0", "#54278f", "#1b0c3a"), strict=False))
        _spectrum(axes, {key: values[0].numpy() for key, values in group.items()}, shades)
        axes.set_title(f"{name}, seed 0")
    _save(pyplot, figure, path)


def _spectrum(axes: Any, groups: dict[str, np.ndarray], colors: dict[str, str]) -> None:
    for name, values in groups.items():
        axes.plot(np.linspace(0, 1, len(values)), values, color=colors[name], lw=1.5, label=name)
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.set(xlabel="share of eigenvalues below", ylabel="eigenvalue of H")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def distances(stored: dict[str, Any], path: Path) -> None:
    """L, squared distance and their product against the multiplier."""
    pyplot = load_pyplot()
    figure, panels = pyplot.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    kinds = {
        "end of GD": lambda row, what: row["GD"][what],
        "end of Adam": lambda row, what: row["Adam"][what],
        "image of the unlocked end": lambda row, what: row["image_of_unlocked"][what],
    }
    for method, color in (("inject", "#084594"), ("fold", "#a63603")):
        rows = [r for r in stored["distance"] if r["lock"].startswith(method)]
        first = "identity C" if method == "inject" else "none"
        rows = [r for r in stored["distance"] if r["lock"] == first] + rows
        alphas = [r["multiplier"] for r in rows]
        panels[0].plot(alphas, [r["L"] for r in rows], color=color, marker="o", label=method)
        for (name, read), style in zip(kinds.items(), (":", "--", "-"), strict=True):
            for axes, what in ((panels[1], "distance_squared"), (panels[2], "product")):
                values = [read(r, what) for r in rows]
                axes.plot(alphas, values, color=color, ls=style, marker="o", ms=4, label=f"{method}: {name}")
    ones = np.array([1.0, 1000.0])
    panels[0].plot(ones, 10 * ones**2, color="#888888", lw=0.8, label=r"slope $\alpha^2$")
    panels[2].plot(ones, 1e3 * ones**4, color="#888888", lw=0.8, label=r"slope $\alpha^4$")
    titles = (r"$L = \sigma_1(H)$ at the start", r"$|\theta_0-\theta_*|^2$", r"$L\,|\theta_0-\theta_*|^2$")
    for axes, title in zip(panels, titles, strict=True):
        axes.set(xscale="log", yscale="log", xlabel="multiplier", title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    _save(pyplot, figure, path)


def rates(stored: dict[str, Any], path: Path) -> None:
    """Lowest loss of every way to choose rates, one dot per lock."""
    pyplot = load_pyplot()
    rows = rows_of_rates(stored)
    figure, axes = pyplot.subplots(figsize=(10.5, 5.6), layout="constrained")
    for y, (_, cells) in enumerate(rows):
        for shift, lock in enumerate(SHOWN):
            if lock in cells:
                at = (cells[lock]["mean_loss"], y + 0.17 * (shift - 1.5))
                axes.plot(*at, color=COLORS[lock], ls="none", ms=7, **_mark(lock))
    for y in range(len(rows) - 1):
        axes.axhline(y + 0.5, color="#dddddd", lw=0.7)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=9)
    axes.set(xscale="log", xlabel="lowest loss at the best settings of the grid, mean of 5 seeds")
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
    _legend(pyplot, figure, SHOWN, 4, extra=[])
    _save(pyplot, figure, path)


def figure1(stored: dict[str, Any], path: Path) -> None:
    """sigma_1(H) and iterations against sigma_1(W), three architectures."""
    pyplot = load_pyplot()
    figure, panels = pyplot.subplots(2, 3, figsize=(12.5, 7), layout="constrained")
    for column, (name, found) in zip(panels.T, stored["architectures"].items(), strict=True):
        sigmas = [row["sigma_1_w"] for row in found["rows"]]
        for axes, keys in zip(column, (("sigma_1_h",), ("theory", "best")), strict=True):
            for key, color in zip(keys, ("#084594", "#a63603"), strict=False):
                values = np.array([row[key] for row in found["rows"]], dtype=float)
                label = {"sigma_1_h": None, "theory": "step size 1/L", "best": "best step size found"}[key]
                axes.plot(sigmas, np.maximum(values, 0.5), color=color, lw=0.7, alpha=0.5)
                axes.plot(sigmas, np.maximum(np.median(values, axis=1), 0.5), color=color, marker="o", label=label)
            axes.set(xscale="log", yscale="log", xlabel=r"$\sigma_1(W)$")
            axes.set_xticks(sigmas, [f"{s:g}" for s in sigmas])
            axes.set_xticks([], minor=True)
            axes.grid(alpha=0.3)
        column[0].set_title(name)
        column[1].legend(fontsize=8)
    panels[0, 0].set_ylabel(r"$\sigma_1(H)$ at the start")
    panels[1, 0].set_ylabel("GD steps to a fixed loss")
    figure.suptitle("Thin: one seed each; thick: their median", fontsize=10)
    _save(pyplot, figure, path)


def figure3(stored: dict[str, Any], path: Path) -> None:
    """Steps on a quadratic against L."""
    pyplot = load_pyplot()
    figure, axes = pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")
    for name, mark in (("1/L", "o"), ("2/(L+1)", "s"), ("1.99/L", "^"), ("1/eigenvalue, per coordinate", "v")):
        points = [(row["L"], row[name]) for row in stored["rows"] if row[name] is not None]
        axes.plot(*zip(*points, strict=True), marker=mark, ms=5, label=f"step size {name}")
    axes.set(xscale="log", yscale="log", xlabel="L, the smallest eigenvalue being 1", ylabel="steps to gradient 1e-3")
    axes.set_title("Gradient descent on a quadratic; 2.01/L diverges at every L", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(pyplot, figure, path)


def _mark(lock: str) -> dict[str, str]:
    return {"marker": MARKS[lock if lock in MARKS else lock.split()[0]]}


def _legend(pyplot: Any, figure: Any, locks: Any, columns: int, extra: list[Any]) -> None:
    handles = [pyplot.Line2D([], [], color=COLORS[lock], **_mark(lock), ms=5, label=lock) for lock in locks]
    figure.legend(handles=[*handles, *extra], loc="outside lower center", ncols=columns, fontsize=9, frameon=False)


def _save(pyplot: Any, figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
