"""What else the paper does to other defences, on the models of `rivals` (stories260k), one seed of each that forgets.

Tables 13 to 16: a lock on top. Table 24: sharpened first. Table 25: Muon, Sophia, AdaHessian. Figures 8 and 9: their
spectra and gradient norms. The model that was never taught stands beside them, as the paper's base model does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import certificates, rivals, spectra, stories, tables
from experiments.heading import heading
from experiments.locked import HERE, locked_copy
from experiments.resources import resources
from specdef.certify.store import write_json
from specdef.certify.study_file import parse_study
from specdef.tasks.base import TaskSpec

FIRST = {"simnpo": 1}
"""Method -> which of its seeds, where the first did not forget."""
LOCKS: tuple[dict[str, Any], ...] = (
    {"preset": "paper", "multiplier": 1e2, "label": "paper 1e2"},
    {"preset": "paper", "multiplier": 1e3, "label": "paper 1e3"},
    {"preset": "paper", "multiplier": 1e4, "label": "paper 1e4"},
    {"preset": "exact", "label": "exact 2^20"},
)
MATRICES = 15
"""Sharpened: all that the papers' lock draws from on this model; the paper takes 20 layers."""
OPTIMIZERS = {"muon": (3e-5, 3e-4, 3e-3), "sophia": (1e-4, 1e-3, 1e-2), "adahessian": (1e-3, 1e-2, 1e-1)}
"""Up to where T2 begins with each."""
SAMPLES = 8


def run(name: str) -> Path:
    """Make what `rivals` has not made, attack it, write a table and a picture."""
    stories.model()
    title, defended, attacks = STUDIES[name]()
    study = rivals.written(title, defended, attacks, rivals.SEEDS)
    tables.run_file(name, parse_study(json.dumps(study).encode()), resources=resources())
    return HERE / "results" / f"{name}.md"


def forgetting() -> list[dict[str, Any]]:
    """Of every method that forgets one model, and the one that was never taught."""
    chosen = [rivals.defences(method)[FIRST.get(method, 0)] for method in rivals.FORGETS]
    return [*({**one, "label": one["method"]} for one in chosen), rivals.never_taught()]


Written = tuple[str, list[Any], list[dict[str, Any]]]


def _locked() -> Written:
    defended = [one for entry in forgetting() for one in (entry, *(rivals.locked(entry, lock) for lock in LOCKS))]
    return "Tables 13 to 16: a lock on top of other defences (stories260k)", defended, rivals.BY_RATE


def _sharpened() -> Written:
    sharpened = [f"sharpen:multiplier={alpha},rank=8,num_matrices={MATRICES}" for alpha in (4, 16)]
    attacks = [
        {"lr": lr, **({"interventions": [how]} if how else {})}
        for lr in (3e-6, 1e-5, 3e-5)
        for how in (None, *sharpened)
    ]
    return "Table 24: sharpening as an attack on other defences (stories260k)", forgetting(), attacks


def _optimizers() -> Written:
    attacks = [{"optimizer": name, "lr": rate} for name, rates in OPTIMIZERS.items() for rate in rates]
    return "Table 25: optimizers that know of curvature (stories260k)", forgetting(), attacks


STUDIES: dict[str, Callable[[], Written]] = {
    "rivals-locked": _locked,
    "rivals-sharpened": _sharpened,
    "rivals-optimizers": _optimizers,
}


def run_spectra(name: str) -> Path:
    """Figures 8 and 9 of every defence of `rivals` that was made, and of two locks."""
    original = stories.model()
    made = [(record["method"], record["seed"], folder) for record, folder in rivals.made()]
    folders = {"taught": next(folder for method, _, folder in made if method == "taught")}
    folders |= {method: folder for method, seed, folder in made if seed == FIRST.get(method, 0)}
    for label in ("paper", "exact"):
        entry = certificates.LOCKS[label]
        assert entry is not None
        folders[entry["label"]] = locked_copy(original, entry)
    task = TaskSpec("own", rivals.rows()["forget"], eval=rivals.rows()["eval"])
    measured = {label: spectra.measure(folder, task, SAMPLES) for label, folder in folders.items()}
    write_json(HERE / "results" / f"{name}.json", {**heading(name), "samples": SAMPLES, "models": measured})
    spectra.draw(measured, HERE / "results" / f"{name}.png")
    path = HERE / "results" / f"{name}.md"
    lines = [
        "# Figures 8 and 9: spectra and gradient norms of other defences (stories260k)",
        "",
        *spectra.table(measured),
        "",
        f"Gradients of the mean loss of {SAMPLES} of the rows that were forgotten; the locks are of the model",
        "that was never taught them.",
        "",
        f"![spectra and gradient norms by layer]({name}.png)",
        "",
        f"Command: `make experiment NAME={name}`, after `NAME=rivals`.",
        "",
    ]
    path.write_text("\n".join(lines))
    return path
