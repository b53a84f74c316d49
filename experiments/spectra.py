"""Figures 8 and 9: the largest singular value and the gradient's norm, layer by layer, unlocked, locked and undone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.curvature import MODELS, folder_of
from experiments.heading import heading
from experiments.locked import HERE, WORK
from specdef import inspect_model
from specdef.analysis.curvature.measure import task_problem
from specdef.analysis.curvature.problem import gradient_norms
from specdef.certify.store import write_json
from specdef.models.bundled import BUNDLED
from specdef.models.sources import find_model
from specdef.tasks.base import TaskSpec

LABELS = ("unlocked", "paper 1e4", "exact 2^20", "paper 1e4, merged", "exact 2^20, rebalanced")
COLOURS = ("#2d3748", "#c53030", "#2b6cb0", "#ed8936", "#38b2ac", "#805ad5", "#97266d", "#718096", "#b7791f", "#2f855a")
MARKERS = "osv^DP*"
"""The next one where the colours begin again."""
SAMPLES = 8


def run(name: str) -> Path:
    """Write results/spectra.json, .md and .png."""
    original = find_model(BUNDLED)
    rows: dict[str, dict[str, Any]] = {}
    for entry in (model for model in MODELS if model["label"] in LABELS):
        kept = WORK / f"spectra-{re.sub(r'[^a-z0-9]+', '-', entry['label'])}.json"
        if not kept.is_file():
            write_json(kept, measure(folder_of(original, entry), TaskSpec("facts"), SAMPLES))
        rows[entry["label"]] = json.loads(kept.read_text())
        print(entry["label"], flush=True)
    write_json(HERE / "results" / f"{name}.json", {**heading(name), "samples": SAMPLES, "models": rows})
    draw(rows, HERE / "results" / f"{name}.png")
    path = HERE / "results" / f"{name}.md"
    path.write_text(_page(rows))
    return path


def measure(folder: Path, task: TaskSpec, samples: int) -> dict[str, Any]:
    """The largest singular value of every matrix of a layer, and the norm of the loss's gradient by every tensor."""
    spectra = {t.name: t.top[0] for t in inspect_model(folder).tensors if t.layer is not None}
    return {"sigma_1": spectra, "gradient": gradient_norms(task_problem(folder, task=task, num_samples=samples))}


def _by_layer(values: Mapping[str, float]) -> dict[int, float]:
    """Layer -> the largest value of its tensors."""
    found: dict[int, float] = {}
    for name, value in values.items():
        match = re.search(r"layers\.(\d+)\.", name)
        if match:
            found[int(match.group(1))] = max(value, found.get(int(match.group(1)), 0.0))
    return found


def draw(rows: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Both by layer, a line a model; dashed where the label has a comma: made of another."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
    for axis, what in zip(axes, ("sigma_1", "gradient"), strict=True):
        for number, (label, row) in enumerate(rows.items()):
            points = sorted(_by_layer(row[what]).items())
            marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
            style = {"ls": "--", "marker": "x"} if "," in label else {"marker": marker}
            axis.semilogy(
                *zip(*points, strict=True), color=COLOURS[number % len(COLOURS)], lw=1.2, ms=4, label=label, **style
            )
        axis.set_xlabel("layer")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("largest singular value of the layer's matrices")
    axes[1].set_ylabel("largest gradient norm of the layer's tensors")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(5, len(rows)), fontsize=8)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row a model, the undefended one first."""
    first = next(iter(rows))
    lines = [
        f"| model | largest sigma_1(W) | layers above twice the {first} one | largest gradient norm |",
        "|---|---|---|---|",
    ]
    plain = _by_layer(rows[first]["sigma_1"])
    for label, row in rows.items():
        spectra = _by_layer(row["sigma_1"])
        above = sum(value > 2 * plain[layer] for layer, value in spectra.items())
        gradient = max(value for value in row["gradient"].values() if math.isfinite(value))
        lines.append(f"| {label} | {max(spectra.values()):.4g} | {above} of {len(spectra)} | {gradient:.4g} |")
    return lines


def _page(rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "# Figures 8 and 9: spectra and gradient norms by layer",
        "",
        *table(rows),
        "",
        f"SmolLM2-135M; gradients of the mean loss of {SAMPLES} samples of `facts`. The paper's figures show that "
        "earlier defences leave both as they are; a lock does not, and whoever undoes it brings them back.",
        "",
        "![spectra and gradient norms by layer](spectra.png)",
        "",
        "Command: `make experiment NAME=spectra`.",
        "",
    ]
    return "\n".join(lines)
