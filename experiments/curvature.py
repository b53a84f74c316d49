"""sigma_1 of the Hessian of SmolLM2-135M: unlocked, under both locks, after they are undone; and how fast that is."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.heading import heading
from experiments.locked import HERE, WORK, locked_copy
from specdef.analysis.curvature.eigen import extreme_eigenpairs, power_iteration
from specdef.analysis.curvature.measure import task_problem
from specdef.analysis.curvature.operators import curvature_operator
from specdef.analysis.curvature.problem import gradient_norms, mean_loss
from specdef.attacks.base import parse_intervention
from specdef.certify.store import write_json
from specdef.models.bundled import BUNDLED
from specdef.models.sources import find_model

SAMPLES, TOLERANCE = 8, 1e-3
MODELS: tuple[dict[str, Any], ...] = (
    {"label": "unlocked"},
    {"label": "paper 1e2", "preset": "paper", "multiplier": "1e2"},
    {"label": "paper 1e3", "preset": "paper", "multiplier": "1e3"},
    {"label": "paper 1e4", "preset": "paper", "multiplier": "1e4"},
    {"label": "exact 2^4", "preset": "exact", "multiplier": "2^4"},
    {"label": "exact 2^10", "preset": "exact", "multiplier": "2^10"},
    {"label": "exact 2^20", "preset": "exact", "multiplier": "2^20"},
    {"label": "paper 1e4, merged", "of": "paper 1e4", "rewrite": "merge"},
    {"label": "exact 2^20, rebalanced", "of": "exact 2^20", "rewrite": "rebalance"},
)


def run(name: str) -> Path:
    """Measure every model once, keep each as it is done; write results/curvature.json and .md."""
    original = find_model(BUNDLED)
    rows = []
    for entry in MODELS:
        kept = WORK / f"curvature-{entry['label'].replace(' ', '-').replace(',', '')}.json"
        if not kept.is_file():
            write_json(kept, _measure(folder_of(original, entry), compare=entry["label"] == "unlocked"))
        gc.collect()  # the gradient's graph and the operator's closures refer to each other
        rows.append({"model": entry["label"], **json.loads(kept.read_text())})
        shown = {key: value for key, value in rows[-1].items() if key != "gradient_norms"}
        print(shown, flush=True)
    settings = {"samples": SAMPLES, "tolerance": TOLERANCE, "task": "facts", "dtype": "fp32"}
    write_json(HERE / "results" / f"{name}.json", {**heading(name), **settings, "rows": rows})
    path = HERE / "results" / f"{name}.md"
    path.write_text(_table(rows))
    return path


def folder_of(original: Path, entry: Mapping[str, Any]) -> Path:
    """The folder of one of `MODELS`, made once."""
    if entry["label"] == "unlocked":
        return original
    if "rewrite" not in entry:
        return locked_copy(original, entry)
    source = next(model for model in MODELS if model["label"] == entry["of"])
    out = WORK / f"{entry['rewrite']}-of-{source['preset']}"
    if not out.is_dir():
        parse_intervention(entry["rewrite"]).rewrite(locked_copy(original, source), out)
    return out


def _measure(folder: Path, *, compare: bool) -> dict[str, Any]:
    problem = task_problem(folder, num_samples=SAMPLES)
    operator = curvature_operator(problem)
    products, product = [0], operator.matvec

    def counted(vector: Any) -> Any:
        products[0] += 1
        return product(vector)

    operator.matvec = counted
    operator.matvec(operator.matvec(_start(operator.shape[0])))  # the gradient's graph is built once, before the clock
    products[0] = 0
    started = time.perf_counter()
    pair = extreme_eigenpairs(operator, tolerance=TOLERANCE)[0]
    found: dict[str, Any] = {
        "loss": float(mean_loss(problem).detach()),
        "eigenvalue": pair.value,
        "sigma_1": abs(pair.value),
        "residual": pair.residual,
        "products": products[0],
        "seconds": round(time.perf_counter() - started, 1),
        "parameters": problem.dimension,
    }
    if compare:
        started = time.perf_counter()
        power, count = power_iteration(operator, tolerance=max(pair.residual, TOLERANCE), max_products=3 * products[0])
        found["power_iteration"] = {
            "eigenvalue": power.value,
            "residual": power.residual,
            "products": count,
            "seconds": round(time.perf_counter() - started, 1),
            "reached": power.residual <= max(pair.residual, TOLERANCE),
        }
    found["gradient_norms"] = gradient_norms(problem)
    return found


def _start(size: int) -> Any:
    import numpy as np

    return np.full(size, size**-0.5, dtype=np.float32)


def _table(rows: list[dict[str, Any]]) -> str:
    base = rows[0]["sigma_1"]
    lines = [
        "# sigma_1 of the Hessian of SmolLM2-135M",
        "",
        "| model | loss | sigma_1(H) | over the unlocked model's | residual | products | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        numbers = f"{row['sigma_1']:.4g} | {row['sigma_1'] / base:.3g}"
        cost = f"{row['residual']:.1e} | {row['products']} | {row['seconds']:.0f}"
        lines.append(f"| {row['model']} | {row['loss']:.5f} | {numbers} | {cost} |")
    power, own = rows[0]["power_iteration"], rows[0]
    word = "reached" if power["reached"] else "did not reach"
    slow, fast = (
        f"{power['products']} products and {power['seconds']:.0f} s",
        f"{own['products']} and {own['seconds']:.0f} s",
    )
    lines += [
        "",
        f"Mean loss per token of {SAMPLES} samples of `facts`, all {rows[0]['parameters']:,} parameters, float32. "
        "Exact products, Lanczos (ARPACK). Residual: ||Hv - lambda v|| / |lambda|. Power iteration, as in PyHessian, "
        f"on the unlocked model {word} the same residual: {power['residual']:.1e} after {slow}; Lanczos took {fast}. "
        "Command: `make experiment NAME=curvature`.",
        "",
    ]
    return "\n".join(lines)
