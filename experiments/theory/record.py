"""What every theory table stores: its rows, the command, the commit, the hardware and the seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.locked import HERE
from specdef.certify.environment import environment
from specdef.certify.store import write_json
from specdef.core.schema import plain

EPS = torch.finfo(torch.float64).eps


def write(
    name: str,
    title: str,
    notes: Sequence[str],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    seeds: Sequence[int],
    per_seed: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write results/NAME.json and results/NAME.md.

    Args:
        name: of the experiment.
        title: first line of the Markdown.
        notes: sentences under the tables.
        tables: heading -> rows, each a mapping of column to value.
        seeds: of the random draws; empty where nothing is drawn.
        per_seed: what the tables' means are taken over, for the JSON.
    """
    machine = plain(environment("cpu"))
    command = f"make experiment NAME={name}"
    content = {"experiment": name, "command": command, "environment": machine, "seeds": list(seeds)}
    content |= {"notes": list(notes), "tables": dict(tables), "per_seed": list(per_seed)}
    write_json(HERE / "results" / f"{name}.json", content)
    lines = [f"# {title}", ""]
    for heading, rows in tables.items():
        lines += [f"## {heading}", "", f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"]
        lines += [f"| {' | '.join(_shown(value) for value in row.values())} |" for row in rows]
        lines.append("")
    lines += [*(f"- {note}" for note in notes), ""]
    drawn = f"seeds {seeds[0]} to {seeds[-1]}" if seeds else "nothing random"
    lines += [f"Command: `{command}`; commit {machine['commit']}; {machine['hardware']}; float64; {drawn}.", ""]
    path = HERE / "results" / f"{name}.md"
    path.write_text("\n".join(lines))
    return path


def mean_std(values: Tensor) -> str:
    """Mean and standard deviation over seeds, as the papers print them."""
    mean, std = values.mean().item(), values.std().item()
    return f"{mean:.2e}±{std:.1e}" if 0 < abs(mean) < 0.005 else f"{mean:.2f}±{std:.2f}"


def listed(**columns: Tensor) -> dict[str, list[float]]:
    """Columns as JSON holds them, one number of seven digits per seed."""
    return {name: [float(f"{value:.7g}") for value in values.tolist()] for name, values in columns.items()}


def loglog_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the least-squares line through (log x, log y): 1 for linear growth, 0 for none."""
    if min(y) <= 0:
        return math.nan
    u, v = torch.tensor(x).double().log(), torch.tensor(y).double().log()
    u, v = u - u.mean(), v - v.mean()
    return ((u * v).sum() / (u * u).sum()).item()


def rounding(scale: Tensor, size: int) -> Tensor:
    """What float64 may lose in a few decompositions: 20 size eps of the scale."""
    return 20 * size * EPS * scale


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3e}"
    return str(value)
