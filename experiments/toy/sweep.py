"""Every optimizer over its grid, on every lock: what the ordinary window finds, and what any setting finds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from experiments.toy.deformations import LOCKS, NONE, Lock, locked
from experiments.toy.network import initial
from experiments.toy.parts import part
from experiments.toy.training import WORST, Data, Runs, train

SEEDS = range(5)
FEW = (NONE, Lock("inject"), Lock("inject", 1000.0), Lock("fold", 2.0**10))
FINALISTS = 4
Cell = dict[str, float]


def decades(first: float, last: float, per: float = 2) -> list[float]:
    number = round((last - first) * per)
    return [10.0 ** (first + i / per) for i in range(number + 1)]


@dataclass(frozen=True)
class Plan:
    """The grid of one optimizer, its ordinary part, and how it is searched.

    With `search` (seeds, steps) the whole grid is tried on the first seeds only; the FINALISTS best of either window
    then run in full.
    """

    optimizer: str
    grid: dict[str, list[float]]
    ordinary: dict[str, tuple[float, float]]
    locks: Sequence[Lock] = LOCKS
    steps: int = 1000
    search: tuple[int, int] | None = None

    def cells(self) -> list[Cell]:
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    def is_ordinary(self, cell: Cell) -> bool:
        return all(low * 0.999 <= cell[name] <= high * 1.001 for name, (low, high) in self.ordinary.items())


RATES = [1, 0.3, 0.1]
DAMPING = [10.0**e for e in range(-14, 5, 2)]
PLANS = (
    Plan("GD", {"lr": decades(-9, 1)}, {"lr": (1e-3, 10)}),
    Plan("Adam", {"lr": decades(-8, 0)}, {"lr": (1e-4, 1)}),
    Plan("Adam, 10000 steps", {"lr": decades(-5, -2, 1)}, {"lr": (1e-4, 1)}, FEW[2:], 10000),
    Plan("AdaHessian", {"lr": decades(-6, 0, 1), "eps": [1e-16, 1e-4]}, {"lr": (1e-3, 1)}, FEW),
    Plan("AdaHessian, exact diagonal", {"lr": decades(-6, 0, 1), "eps": [1e-16, 1e-4]}, {"lr": (1e-3, 1)}),
    Plan("KFAC", {"lr": [1, 0.3, 0.1, 0.01], "damping": DAMPING}, {"damping": (1e-4, 1)}, FEW, 1000, (2, 300)),
    Plan(
        "Natural gradient", {"lr": [*RATES, 0.03, 0.01], "damping": DAMPING}, {"damping": (1e-4, 1)}, FEW, 200, (2, 200)
    ),
    Plan("Natural gradient, Marquardt", {"lr": RATES, "damping": decades(-5, 2, 1)}, {}, FEW, 200, (2, 200)),
    Plan("Newton", {"lr": [*RATES, 0.03, 0.01], "damping": DAMPING[3:]}, {"damping": (1e-4, 1)}, FEW, 200, (2, 200)),
    Plan("Cubic Newton", {"lr": [1, 0.3, 0.1], "M": decades(-2, 10, 0.5)}, {"M": (1e-2, 1e2)}, FEW, 200, (2, 200)),
)


def run_plan(plan: Plan, data: Data) -> dict[str, Any]:
    """For every lock the best ordinary and the best of all cells, and the mean loss of each cell tried."""
    rows = {}
    for lock in plan.locks:
        rows[lock.label] = row = part(
            f"{plan.optimizer} on {lock.label}", lambda lock=lock: _run_lock(plan, lock, data)
        )
        print(plan.optimizer, lock.label, _say(row["ordinary"]), "|", _say(row["best"]), flush=True)
    return {"steps": plan.steps, "search": plan.search, "grid": plan.grid, "ordinary": plan.ordinary, "locks": rows}


def _run_lock(plan: Plan, lock: Lock, data: Data) -> dict[str, Any]:
    cells, tried = plan.cells(), []
    if plan.search is not None:
        num_seeds, steps = plan.search
        tried = run_cells(plan.optimizer, lock, cells, data, range(num_seeds), steps)
        cells = _finalists(plan, tried)
    full = run_cells(plan.optimizer, lock, cells, data, SEEDS, plan.steps)
    usual, best = _winners(plan, full)
    shown = [{"settings": cell["settings"], "mean_loss": cell["mean_loss"]} for cell in (tried or full)]
    return {"ordinary": usual, "best": best, "cells": shown}


def run_cells(
    optimizer: str, lock: Lock, cells: Sequence[Cell], data: Data, seeds: range, steps: int
) -> list[dict[str, Any]]:
    """One result per cell, over all seeds, trained side by side."""
    start = locked(lock, initial(seeds))
    theta = start.repeat(len(cells), 1)
    settings = {
        name: torch.tensor([cell[name] for cell in cells], dtype=torch.float64).repeat_interleave(len(start))
        for name in cells[0]
    }
    runs = train(lock.stack, optimizer, theta, settings, data, steps=steps, every=max(1, steps // 50))
    return [
        {"settings": cell, **summary(runs, slice(i * len(start), (i + 1) * len(start)))} for i, cell in enumerate(cells)
    ]


def summary(runs: Runs, rows: slice) -> dict[str, Any]:
    """Per seed and in the mean, at the lowest loss of every run."""
    loss, final = runs.loss[rows], runs.final[rows].nan_to_num(nan=WORST, posinf=WORST).clamp(max=WORST)
    curve = runs.curve[rows].nan_to_num(nan=WORST, posinf=WORST).clamp(max=WORST).mean(0)
    return {
        "loss": loss.tolist(),
        "accuracy": runs.accuracy[rows].tolist(),
        "final_loss": final.tolist(),
        "diverged": int(runs.diverged[rows].sum()),
        "steps_to_target": [None if math.isinf(s) else int(s) for s in runs.reached[rows].tolist()],
        "mean_loss": loss.mean().item(),
        "curve": [float(f"{value:.4g}") for value in curve.tolist()],
    }


def _finalists(plan: Plan, tried: list[dict[str, Any]]) -> list[Cell]:
    ranked = [cell["settings"] for cell in sorted(tried, key=lambda cell: cell["mean_loss"])]
    usual = [cell for cell in ranked if plan.is_ordinary(cell)]
    return [cell for cell in ranked if cell in usual[:FINALISTS] or cell in ranked[:FINALISTS]]


def _winners(plan: Plan, cells: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    usual = min((c for c in cells if plan.is_ordinary(c["settings"])), key=lambda c: c["mean_loss"])
    best = min(cells, key=lambda c: c["mean_loss"])
    return usual, usual if usual["mean_loss"] == best["mean_loss"] else best


def _say(cell: dict[str, Any]) -> str:
    settings = " ".join(f"{name}={value:.3g}" for name, value in cell["settings"].items())
    accuracy = sum(cell["accuracy"]) / len(cell["accuracy"])
    return f"{settings}: loss {cell['mean_loss']:.4g}, accuracy {accuracy:.3f}, diverged {cell['diverged']}"
