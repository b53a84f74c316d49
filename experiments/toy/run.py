"""`make experiment NAME=toy` (also figure1, figure3): measure, store, then draw from what was stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.locked import HERE
from experiments.toy import distance, figure1, hessians, pictures, quadratic, rates, tables
from experiments.toy.network import spirals
from experiments.toy.sweep import PLANS, SEEDS, run_plan
from specdef.certify.environment import environment
from specdef.certify.store import write_json
from specdef.core.schema import plain

RESULTS = HERE / "results"


def run(name: str) -> Path:
    """Measure one of NAMES; write results/NAME.json, results/NAME.md and its figures."""
    measure, _ = NAMES[name]
    content = {"experiment": name, "command": f"make experiment NAME={name}", "environment": plain(environment("cpu"))}
    write_json(RESULTS / f"{name}.json", {**content, **measure()})
    return draw(name)


def draw(name: str) -> Path:
    """Tables and figures from results/NAME.json; `python -c "from experiments.toy.run import draw; draw('toy')"`."""
    stored = json.loads((RESULTS / f"{name}.json").read_text())
    path = RESULTS / f"{name}.md"
    path.write_text(NAMES[name][1](stored, RESULTS))
    return path


def _measure_toy() -> dict[str, Any]:
    data = spirals()
    plans = {plan.optimizer: run_plan(plan, data) for plan in PLANS}
    return {
        "seeds": list(SEEDS),
        "samples": len(data[1]),
        "plans": plans,
        "rates": rates.measure(data),
        "distance": distance.measure(plans, data),
        "hessians": hessians.measure(data),
    }


def _draw_toy(stored: dict[str, Any], folder: Path) -> str:
    pictures.learning_rates(stored, folder / "toy-learning-rates.png")
    pictures.rates(stored, folder / "toy-rates.png")
    pictures.dynamics(stored, folder / "toy-dynamics.png")
    pictures.heat_maps(folder / "toy-hessians.png")
    pictures.spectra(folder / "toy-spectra.png")
    pictures.distances(stored, folder / "toy-distance.png")
    return tables.toy(stored)


def _draw_figure1(stored: dict[str, Any], folder: Path) -> str:
    pictures.figure1(stored, folder / "figure1.png")
    return tables.figure1(stored)


def _draw_figure3(stored: dict[str, Any], folder: Path) -> str:
    pictures.figure3(stored, folder / "figure3.png")
    return tables.figure3(stored)


NAMES: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[dict[str, Any], Path], str]]] = {
    "toy": (_measure_toy, _draw_toy),
    "figure1": (lambda: {"seeds": list(figure1.SEEDS), "architectures": figure1.measure()}, _draw_figure1),
    "figure3": (lambda: {"seeds": [], "rows": quadratic.measure()}, _draw_figure3),
}
