"""The results as Markdown: tables 26 to 28 of the paper in shape, then what the paper does not ask."""

from __future__ import annotations

import math
from statistics import mean, stdev
from typing import Any

Cell = dict[str, Any]


def toy(stored: dict[str, Any]) -> str:
    plans, environment = stored["plans"], stored["environment"]
    lines = [
        "# The toy laboratory",
        "",
        f"Two spirals, {stored['samples']} points, ReLU network 2-8-8-1 in float64, full batch, locked at its random",
        f"start, seeds {stored['seeds'][0]} to {stored['seeds'][-1]}. inject: 4 of the 8 singular values of the second",
        "weight times the multiplier, compensation C beside it, all trained; fold: 4 of 8 channels of both hidden",
        "layers; identity C: inject at multiplier 1. Loss and accuracy are a run's at its lowest loss, also",
        "where it diverged later.",
        "",
        "## Grids (the paper's table 26)",
        "",
        "| optimizer | setting | whole grid | ordinary window | steps | search |",
        "|---" * 6 + "|",
    ]
    for name, plan in plans.items():
        for setting, values in plan["grid"].items():
            low, high = plan["ordinary"].get(setting, (min(values), max(values)))
            search = "every cell, 5 seeds" if plan["search"] is None else "{} seeds, {} steps".format(*plan["search"])
            grid = f"{_number(min(values))} to {_number(max(values))}, {len(values)} values"
            window = f"{_number(max(low, min(values)))} to {_number(min(high, max(values)))}"
            lines.append(f"| {name} | {setting} | {grid} | {window} | {plan['steps']} | {search} |")
    lines += ["", "After a search the 4 best of each window run with all seeds and all steps.", ""]
    lines += _settings(plans)
    lines += _scores(plans, "accuracy", "Accuracy (the paper's table 28)")
    lines += _scores(plans, "loss", "Loss")
    lines += _rates(stored)
    lines += _distance(stored)
    lines += _hessians(stored)
    commits = sorted(set(_commits(stored)))
    lines += [f"Command: `{stored['command']}`; parts measured at {', '.join(commits)}; {environment['hardware']}.", ""]
    return "\n".join(lines)


def _commits(stored: dict[str, Any]) -> list[str]:
    groups = [plan["locks"] for plan in stored["plans"].values()] + list(stored["rates"].values())
    return [str(row["commit"]) for group in groups for row in group.values()]


def _settings(plans: dict[str, Any]) -> list[str]:
    lines = ["## Best settings (table 27)", "", "| optimizer | lock | ordinary window | whole grid |", "|---" * 4 + "|"]
    for name, plan in plans.items():
        for lock, row in plan["locks"].items():
            usual, best = (_say(row[key]["settings"]) for key in ("ordinary", "best"))
            lines.append(f"| {name} | {lock} | {usual} | {'same' if usual == best else best} |")
    return [*lines, ""]


def _scores(plans: dict[str, Any], what: str, title: str) -> list[str]:
    lines = [
        f"## {title}",
        "",
        "| optimizer | lock | ordinary window | whole grid | steps to loss 0.1 |",
        "|---" * 5 + "|",
    ]
    for name, plan in plans.items():
        for lock, row in plan["locks"].items():
            usual, best = (_score(row[key], what) for key in ("ordinary", "best"))
            lines.append(
                f"| {name} | {lock} | {usual} | {'same' if usual == best else best} | {_reached(row['best'])} |"
            )
    return [*lines, "", "Mean and standard deviation over seeds; (d n): n seeds diverged at some time.", ""]


def rows_of_rates(stored: dict[str, Any]) -> list[tuple[str, dict[str, Cell]]]:
    """Way to choose rates -> lock -> best cell: one rate, several, and the methods that scale by curvature."""
    swept = {name: {k: v["best"] for k, v in plan["locks"].items()} for name, plan in stored["plans"].items()}
    ruled = {name: {k: v["best"] for k, v in group.items()} for name, group in stored["rates"].items()}
    rows = [("GD, one rate", swept["GD"]), *((k, v) for k, v in ruled.items() if k.startswith("GD"))]
    rows += [("Adam, one rate", swept["Adam"]), ("Adam, one rate, 10000 steps", swept["Adam, 10000 steps"])]
    rows += [*((k, v) for k, v in ruled.items() if k.startswith("Adam"))]
    return rows + [(k, v) for k, v in swept.items() if not k.startswith(("GD", "Adam"))]


def _rates(stored: dict[str, Any]) -> list[str]:
    rows = rows_of_rates(stored)
    locks = list(next(iter(stored["rates"].values())))
    lines = ["## Any rate, one or many: lowest loss", "", "Rules of rates use the public weights and data only.", ""]
    lines += ["| training | " + " | ".join(locks) + " |", "|---" * (len(locks) + 1) + "|"]
    for name, cells in rows:
        values = [
            _number(cells[lock]["mean_loss"]) + _reached_short(cells[lock]) if lock in cells else "" for lock in locks
        ]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return [*lines, "", "In brackets: median steps to loss 0.1 over seeds, - if most never reach it.", ""]


def _distance(stored: dict[str, Any]) -> list[str]:
    lines = ["## L, distance and product", "", "D is |theta_0 - theta*|; geometric means over seeds.", ""]
    head = ["lock", "L", "GD: end loss", "GD: D^2", "GD: L D^2", "Adam: end loss", "Adam: D^2", "Adam: L D^2"]
    lines += ["| " + " | ".join([*head, "image: D^2", "image: L D^2"]) + " |", "|---" * 10 + "|"]
    for row in stored["distance"]:
        values = [row["L"]]
        for name in ("GD", "Adam"):
            values += [row[name]["loss"], row[name]["distance_squared"], row[name]["product"]]
        values += [row["image_of_unlocked"]["distance_squared"], row["image_of_unlocked"]["product"]]
        lines.append(f"| {row['lock']} | " + " | ".join(map(_number, values)) + " |")
    return [*lines, "", "image: the network Adam finds without the lock, in locked coordinates.", ""]


def _hessians(stored: dict[str, Any]) -> list[str]:
    lines = ["## Hessian at the start", "", "| lock | largest | smallest | share between layers |", "|---" * 4 + "|"]
    for row in stored["hessians"]["rows"]:
        share = f"{100 * row['off_diagonal_share']:.0f}%"
        lines.append(f"| {row['lock']} | {_number(row['largest'])} | {_number(row['smallest'])} | {share} |")
    lines += ["", "Share of the squared entries outside the layers' own blocks. sigma_1(H) by variant (figure 12):", ""]
    for name, group in stored["hessians"]["sigma_1"].items():
        lines.append(f"- {name}: " + ", ".join(f"{key}: {_number(value)}" for key, value in group.items()))
    return [*lines, ""]


def figure1(stored: dict[str, Any]) -> str:
    lines = ["# Figure 1: sigma_1(H) and iterations against sigma_1(W)", ""]
    lines += ["| network | sigma_1(W) | sigma_1(H) | steps at 1/L | steps at the best step size |", "|---" * 5 + "|"]
    for name, found in stored["architectures"].items():
        for row in found["rows"]:
            cells = [" / ".join(map(_number, row[key])) for key in ("sigma_1_h", "theory", "best")]
            lines.append(f"| {name} | {row['sigma_1_w']:g} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Seeds are divided by slashes. The target of a seed is the worst of the lowest losses reached at 1/L;",
    ]
    lines += ["step sizes tried: 1/4, 1, 4, 16 times 1/L, 300 steps, 64 samples. ![figure 1](figure1.png)", ""]
    return "\n".join([*lines, f"Command: `{stored['command']}`; commit {stored['environment']['commit']}.", ""])


def figure3(stored: dict[str, Any]) -> str:
    names = list(stored["rows"][0])
    lines = ["# Figure 3: gradient descent on a quadratic", "", "| " + " | ".join(names) + " |"]
    lines.append("|---" * len(names) + "|")
    for row in stored["rows"]:
        lines.append("| " + " | ".join("diverges" if row[n] is None else f"{row[n]:g}" for n in names) + " |")
    lines += ["", "Steps until the gradient is below 1e-3. ![figure 3](figure3.png)", ""]
    return "\n".join([*lines, f"Command: `{stored['command']}`; commit {stored['environment']['commit']}.", ""])


def _say(settings: dict[str, float]) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in settings.items())


def _score(cell: Cell, what: str) -> str:
    values = cell[what]
    gone = f" (d {cell['diverged']})" if cell["diverged"] else ""
    return f"{_number(mean(values))} ± {_number(stdev(values))}{gone}"


def _median_steps(cell: Cell) -> float:
    steps = sorted(math.inf if s is None else s for s in cell["steps_to_target"])
    return float(steps[len(steps) // 2])


def _reached(cell: Cell) -> str:
    done = [s for s in cell["steps_to_target"] if s is not None]
    return f"{len(done)}/{len(cell['steps_to_target'])}" + (
        f", median {_median_steps(cell):g}" if len(done) > 2 else ""
    )


def _reached_short(cell: Cell) -> str:
    steps = _median_steps(cell)
    return " (-)" if math.isinf(steps) else f" ({steps:g})"


def _number(value: float) -> str:
    return f"{value:.3g}"
