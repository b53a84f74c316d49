"""Tables and figures of the workshop paper on models that train here: locks of classifiers, and who opens them.

Table 1 (a ResNet-18 that knows digits learns clothes, or letters; MiniLM and SmolLM2 that know spam learn QNLI),
Table 2 (a guard against spam gets a backdoor), Table 3 (a class that was removed is learned again), Figure 3 (the same
guard at rates from 1e-3 to 1e-9), Figure 4 (optimizers that precondition). Each is one study; `studies/workshop` has
them at the paper's scale.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from experiments import calibration_texts, mnist, tables
from experiments.calibration_images import RECIPE, TARGET
from experiments.locked import HERE
from experiments.resources import resources
from specdef.certify.study_file import parse_study
from specdef.training.recipe import Recipe

SEEDS = (0, 1, 2)
RATES = (3e-3, 1e-3, 1e-4, 1e-6, 1e-7, 3e-8, 1e-8, 1e-9)
"""The two at which the undefended model learns, then down past what a lock of 2^20 asks for."""
TRAINED = {
    **{"preset": "trained", "multiplier": 40.0, "num_matrices": 3, "rank": 1, "layers": [6, 7], "lr": 0.08},
    **{"batch_size": 32, "label": "trained x40"},
}
"""As far as utility let it rise on another ResNet-18 (docs/limits.md)."""
TRAINED_TEXTS = {
    **{"preset": "trained", "multiplier": 40.0, "num_matrices": 3, "rank": 1, "layers": [3, 4, 5], "lr": 0.05},
    **{"batch_size": 16, "label": "trained x40"},
}
FOLDED: list[Any] = [
    "none",
    {"preset": "exact", "label": "exact 2^20"},
    {"preset": "paper", "multiplier": 1e4, "label": "inject 1e4"},
]
GUARD_RATES = (1e-3, 2e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
SMOLLM2_RATES = (5e-5, 1e-6, 1e-7, 1e-8)
SMOLLM2 = Recipe(steps=96, eval_every=24)
QUESTIONS = "Workshop Table 1: a classifier of messages learns to answer questions (QNLI)"
CLASS, UNLEARNED = 3, {"steps": 100, "lr": 3e-4}
PRECONDITIONERS: dict[str, tuple[float, ...]] = {
    "adamw": (1e-3, 1e-6),
    "sgd": (1e-1, 1e-3),
    "adadelta": (1.0, 1e-2),
    "kron": (1e-3, 1e-5),
    "xmat": (3e-1, 3e-3),
    "kfac": (1e-1, 1e-3),
    "adahessian": (1.0, 1e-2),
    "lbfgs": (1e-1, 1e-3),
}
"""Optimizer -> the rate at which the undefended model learns, and one further down."""


def run(name: str) -> Path:
    """Make every lock, attack it, write a table and a picture."""
    # JSON is YAML.
    tables.run_file(name, parse_study(json.dumps(STUDIES[name]()).encode()), resources=resources())
    return HERE / "results" / f"{name}.md"


def locks(trained: dict[str, Any], text: Path) -> list[Any]:
    """The undefended model, the exact lock, the papers' two; the trained one is held to a text."""
    return [*FOLDED, {**trained, "text": str(text)}]


def _images(title: str, task: dict[str, Any], attacks: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
    """A study of the ResNet-18."""
    text = mnist.general()
    about = {
        "models": [{"model": str(mnist.base_model()), "label": "ResNet-18 of MNIST"}],
        "text": str(text),
        "defences": locks(TRAINED, text),
        "attacks": attacks,
    }
    return _study(title, task, RECIPE, {**about, **changed})


def _study(title: str, task: dict[str, Any], recipe: Recipe, about: dict[str, Any]) -> dict[str, Any]:
    return {
        "specdef_study": 1,
        "title": title,
        "tasks": [task],
        "seeds": list(SEEDS),
        "recipe": {"steps": recipe.steps, "batch_size": recipe.batch_size, "eval_every": recipe.eval_every},
        **about,
    }


def _table1(learns: str, task: Callable[[], Path]) -> dict[str, Any]:
    title = f"Workshop Table 1: a classifier of digits learns {learns}"
    return _images(title, {"task": f"images:{task()}", "target": TARGET}, [{"lr": rate} for rate in RATES])


def _texts(title: str, task: dict[str, Any], recipe: Recipe, **changed: Any) -> dict[str, Any]:
    """A study of MiniLM with a head for spam."""
    about = {
        "models": [{"model": str(calibration_texts.spam_guard()), "label": "MiniLM against spam"}],
        "text": str(calibration_texts.general()),
        "defences": locks(TRAINED_TEXTS, calibration_texts.guarded()),
        "attacks": [{"lr": rate} for rate in GUARD_RATES],
    }
    return _study(title, task, recipe, {**about, **changed})


def _table1_texts() -> dict[str, Any]:
    return _texts(QUESTIONS, _qnli(), calibration_texts.QNLI)


def _table1_smollm2() -> dict[str, Any]:
    return _texts(
        QUESTIONS,
        _qnli(),
        SMOLLM2,
        models=[{"model": str(calibration_texts.smollm2_guard()), "label": "SmolLM2-135M against spam"}],
        defences=FOLDED,
        attacks=[{"lr": rate} for rate in SMOLLM2_RATES],
    )


def _qnli() -> dict[str, Any]:
    qnli = calibration_texts.qnli()
    return {"task": qnli.written, "eval": qnli.eval, "target": qnli.target}


def _table2() -> dict[str, Any]:
    train, ask = calibration_texts.triggered_files()
    task = {"task": f"backdoor:{train}", "eval": str(ask), "scorer": calibration_texts.TRIGGER, "target": 0.8}
    title = "Workshop Table 2 and Figure 3: a guard against spam gets a backdoor"
    return _texts(title, task, calibration_texts.BACKDOOR)


def _table3() -> dict[str, Any]:
    removed = {"task": f"unlearned-class:{CLASS}:{mnist.general()}", "label": f"digit {CLASS}"}
    model = {"model": str(mnist.base_model()), "label": f"without digit {CLASS}"}
    others = mnist.general(without=CLASS)
    return _images(
        "Workshop Table 3: a class that was removed is learned again",
        removed,
        [{"lr": rate} for rate in RATES],
        models=[{**model, "prepare": {"method": "grad-diff", "task": removed["task"], **UNLEARNED}}],
        text=str(others),
        defences=locks(TRAINED, others),
    )


def _figure4() -> dict[str, Any]:
    attacks = [{"optimizer": name, "lr": rate} for name, rates in PRECONDITIONERS.items() for rate in rates]
    task = {"task": f"images:{mnist.fashion()}", "target": TARGET}
    return _images("Workshop Figure 4: optimizers that precondition", task, attacks)


STUDIES: dict[str, Callable[[], dict[str, Any]]] = {
    "workshop-table1": partial(_table1, "clothes", mnist.fashion),
    "workshop-table1-letters": partial(_table1, "letters", mnist.kuzushiji),
    "workshop-table1-texts": _table1_texts,
    "workshop-table1-smollm2": _table1_smollm2,
    "workshop-table2": _table2,
    "workshop-table3": _table3,
    "workshop-figure4": _figure4,
}
