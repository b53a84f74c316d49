"""What layer injection costs: the number of layers needed against log alpha, and parameters and memory against k.

Seconds a step are timed apart, with nothing beside them: `python -m benchmarks.bench_injection`.

Reads results/table8.json (`make experiment NAME=table8`); writes results/injection.json, .md and .png.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from experiments.locked import HERE
from specdef.certify.store import write_json


def run(name: str) -> Path:
    """Fit and plot."""
    table = json.loads((HERE / "results" / "table8.json").read_text())
    learned = _learned(table)
    tolerated = max((alpha for alpha, by_k in learned.items() if by_k[0]), default=1.0)
    critical = _critical(learned)
    rows = [
        {
            "multiplier": alpha,
            "predicted": 0 if alpha <= tolerated else _predicted(alpha, critical),
            "needed": next((k for k, fine in sorted(by_k.items()) if fine), None),
            "learned_at": by_k,
        }
        for alpha, by_k in learned.items()
        if alpha > 1
    ]
    costs = _costs(table)
    fits = {
        what: _fit([cost["k"] for cost in costs], [cost[what] for cost in costs])
        for what in ("added_parameters", "peak_memory_bytes")
    }
    needed = [(math.log10(row["multiplier"]), row["needed"]) for row in rows if row["needed"] is not None]
    fits["needed layers by log10 alpha"] = _fit(*map(list, zip(*needed, strict=True))) if len(needed) > 1 else None
    content = {
        "experiment": name,
        "command": f"make experiment NAME={name}",
        "source": "table8.json",
        "environment": table["environment"],
        "tolerated_by_plain_fine_tuning": tolerated,
        "critical_multiplier_per_matrix": critical,
        "per_matrix_learned": sorted(alpha ** (1 / (k + 1)) for alpha, k, fine in _chains(learned) if fine),
        "per_matrix_not_learned": sorted(alpha ** (1 / (k + 1)) for alpha, k, fine in _chains(learned) if not fine),
        "rows": rows,
        "costs": costs,
        "fits": fits,
    }
    write_json(HERE / "results" / f"{name}.json", content)
    _plot(rows, costs, fits, critical, HERE / "results" / f"{name}.png")
    path = HERE / "results" / f"{name}.md"
    path.write_text(_table(content))
    return path


def _learned(table: dict[str, Any]) -> dict[float, dict[int, bool]]:
    """Multiplier -> layers added (interleaved) -> whether the target was reached within the utility budget."""
    found: dict[float, dict[int, bool]] = {}
    for row in table["rows"]:
        alpha = 1.0 if row["lock"] == "none" else float(row["lock"].split()[1])
        for entry in row["entries"]:
            k = _layers(entry["attack"])
            if k is not None and (alpha > 1 or k == 0):
                found.setdefault(alpha, {})[k] = entry["steps"] is not None
    return found


def _layers(attack: str) -> int | None:
    """k of an interleaved injection; 0 for plain fine-tuning, None for another attack."""
    if not attack.startswith("inject-layers"):
        return 0
    match = re.search(r"factors (\d+)", attack)
    return None if "literal" in attack else int(match.group(1)) if match else 1


def _chains(learned: dict[float, dict[int, bool]]) -> list[tuple[float, int, bool]]:
    """(multiplier, k, learned) of every chain tried."""
    return [(alpha, k, fine) for alpha, by_k in learned.items() if alpha > 1 for k, fine in by_k.items() if k > 0]


def _critical(learned: dict[float, dict[int, bool]]) -> float | None:
    """The multiplier a chain's single matrix may have, read at the smallest multiplier that needs a chain.

    Halfway, on a logarithmic scale, between the longest chain that failed there and the shortest that learned.
    """
    for alpha in sorted(alpha for alpha, by_k in learned.items() if not by_k[0]):
        fine = min((k for k, found in learned[alpha].items() if found), default=None)
        if fine is not None:
            return math.exp((math.log(alpha) / (fine + 1) + math.log(alpha) / fine) / 2)
    return None


def _predicted(alpha: float, critical: float | None) -> int | None:
    """Theorem 32: the smallest k with alpha^(1/(k+1)) at most the critical multiplier."""
    return None if critical is None else max(0, math.ceil(math.log(alpha) / math.log(critical) - 1e-9) - 1)


def _costs(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Mean over multipliers of what k layers cost."""
    by_k: dict[int, list[dict[str, Any]]] = {}
    for row in table["rows"]:
        for entry in row["entries"] if row["lock"] != "none" else ():
            k = _layers(entry["attack"])
            if k is not None and entry["cost"]["seconds_per_step"] is not None:
                by_k.setdefault(k, []).append(entry["cost"])

    def mean(costs: list[dict[str, Any]], what: str) -> float:
        return float(np.mean([cost[what] or 0 for cost in costs]))

    return [
        {"k": k, **{what: mean(costs, what) for what in ("added_parameters", "seconds_per_step", "peak_memory_bytes")}}
        for k, costs in sorted(by_k.items())
    ]


def _fit(x: list[float], y: list[float]) -> dict[str, Any]:
    slope, intercept = np.polyfit(x, y, 1)
    residuals = np.asarray(y) - (slope * np.asarray(x) + intercept)
    return {"slope": float(slope), "intercept": float(intercept), "residuals": [float(r) for r in residuals]}


def _plot(
    rows: list[dict[str, Any]], costs: list[dict[str, Any]], fits: dict[str, Any], critical: float | None, path: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for row in rows:
        for k, fine in row["learned_at"].items():
            colour, mark = ("#2b6cb0", "o") if fine else ("#c53030", "x")
            axes[0].scatter(row["multiplier"], int(k), color=colour, marker=mark, s=60, zorder=3)
    if critical is not None:
        alphas = np.logspace(0, 1 + max(math.log10(row["multiplier"]) for row in rows), 200)
        axes[0].plot(alphas, np.log(alphas) / math.log(critical) - 1, color="#718096", lw=1)
    axes[0].set(xscale="log", xlabel="multiplier", ylabel="layers added, k", ylim=(-0.5, 5.5))
    axes[0].set_title(f"learned (o) or not (x); line: $\\alpha^{{1/(k+1)}} = {critical or 0:.3g}$", fontsize=10)
    for axis, what, scale, label in (
        (axes[1], "added_parameters", 1e-6, "parameters added (millions)"),
        (axes[2], "peak_memory_bytes", 2**-30, "peak memory (GiB)"),
    ):
        x = np.array([cost["k"] for cost in costs])
        axis.scatter(x, [cost[what] * scale for cost in costs], color="#2b6cb0", zorder=3)
        axis.plot(x, (fits[what]["slope"] * x + fits[what]["intercept"]) * scale, color="#718096", lw=1)
        axis.set(xlabel="layers added, k", ylabel=label, ylim=(min(0, axis.get_ylim()[0]), None))
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _table(content: dict[str, Any]) -> str:
    lines = [
        "# Layer injection: layers needed, and what they cost",
        "",
        "| multiplier | layers predicted | layers needed | learned at k = |",
        "|---|---|---|---|",
    ]
    for row in content["rows"]:
        fine = ", ".join(str(k) for k, found in row["learned_at"].items() if found) or "none tried"
        lines.append(f"| {row['multiplier']:g} | {row['predicted']} | {row['needed']} | {fine} |")
    parts = []
    for what, fit in content["fits"].items():
        if fit is not None:
            worst = max(map(abs, fit["residuals"]))
            parts.append(f"{what}: {fit['intercept']:.3g} + {fit['slope']:.3g} x, largest residual {worst:.2g}")
    plain, critical = content["tolerated_by_plain_fine_tuning"], content["critical_multiplier_per_matrix"] or 0
    tolerated = "none of these" if plain <= 1 else f"a multiplier of {plain:g}"
    fine, failed = content["per_matrix_learned"], content["per_matrix_not_learned"]
    lines += [
        "",
        f"Plain fine-tuning tolerates {tolerated}. Chains learned wherever alpha^(1/(k+1)) is at most "
        f"{max(fine, default=0):.3g}, and nowhere from {min(failed, default=0):.3g} up. Predicted: the smallest k with "
        f"alpha^(1/(k+1)) at most {critical:.3g}, read at the smallest multiplier that needs one; the rows below it "
        "test that. Straight lines through the measured points: " + "; ".join(parts) + ".",
        "",
        "![needed layers, and cost by k](injection.png)",
        "",
        "Command: `make experiment NAME=injection`, after `table8`.",
        "",
    ]
    return "\n".join(lines)
