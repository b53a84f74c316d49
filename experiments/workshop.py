"""Tables and figures of the workshop paper on models that train here: locks of classifiers, and who opens them.

Table 1 (a ResNet-18 that knows digits learns clothes, or letters), Figure 4 (optimizers that precondition). Each is one
study.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from experiments import mnist, tables
from experiments.calibration_images import RECIPE, TARGET
from experiments.locked import HERE
from experiments.resources import resources
from specdef.certify.study_file import parse_study

SEEDS = (0, 1, 2)
RATES = (3e-3, 1e-3, 1e-4, 1e-6, 1e-7, 3e-8, 1e-8, 1e-9)
"""The two at which the undefended model learns, then down past what a lock of 2^20 asks for."""
TRAINED = {
    **{"preset": "trained", "multiplier": 40.0, "num_matrices": 3, "rank": 1, "layers": [6, 7], "lr": 0.08},
    **{"batch_size": 32, "label": "trained x40"},
}
"""As far as utility let it rise on another ResNet-18 (docs/limits.md)."""
PRECONDITIONERS: dict[str, tuple[float, ...]] = {
    "adamw": (1e-3, 1e-6),
    "sgd": (1e-1, 1e-3),
    "adadelta": (1.0, 1e-2),
    "kron": (1e-3, 1e-5),
    "xmat": (1e-2, 1e-4),
    "kfac": (1e-2, 1e-4),
    "adahessian": (1e-1, 1e-3),
    "lbfgs": (1e-1, 1e-3),
}
"""Optimizer -> the rate at which the undefended model learns, and one further down."""


def run(name: str) -> Path:
    """Make every lock, attack it, write a table and a picture."""
    # JSON is YAML.
    tables.run_file(name, parse_study(json.dumps(STUDIES[name]()).encode()), resources=resources())
    return HERE / "results" / f"{name}.md"


def locks(text: Path) -> list[Any]:
    """The undefended model, the exact lock, the papers' two."""
    return [
        "none",
        {"preset": "exact", "label": "exact 2^20"},
        {"preset": "paper", "multiplier": 1e4, "label": "inject 1e4"},
        {**TRAINED, "text": str(text)},
    ]


def _images(title: str, task: Path, attacks: list[dict[str, Any]]) -> dict[str, Any]:
    text = mnist.general()
    return {
        "specdef_study": 1,
        "title": title,
        "models": [{"model": str(mnist.base_model()), "label": "ResNet-18 of MNIST"}],
        "tasks": [{"task": f"images:{task}", "target": TARGET}],
        "text": str(text),
        "defences": locks(text),
        "attacks": attacks,
        "seeds": list(SEEDS),
        "recipe": {"steps": RECIPE.steps, "batch_size": RECIPE.batch_size, "eval_every": RECIPE.eval_every},
    }


def _table1(learns: str, task: Callable[[], Path]) -> dict[str, Any]:
    title = f"Workshop Table 1: a classifier of digits learns {learns}"
    return _images(title, task(), [{"lr": rate} for rate in RATES])


def _figure4() -> dict[str, Any]:
    attacks = [{"optimizer": name, "lr": rate} for name, rates in PRECONDITIONERS.items() for rate in rates]
    return _images("Workshop Figure 4: optimizers that precondition", mnist.fashion(), attacks)


STUDIES: dict[str, Callable[[], dict[str, Any]]] = {
    "workshop-table1": partial(_table1, "clothes", mnist.fashion),
    "workshop-table1-letters": partial(_table1, "letters", mnist.kuzushiji),
    "workshop-figure4": _figure4,
}
