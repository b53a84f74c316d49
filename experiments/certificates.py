"""The certificates of the bundled model: undefended, with the papers' lock and with the two exact ones."""

from __future__ import annotations

import os
from pathlib import Path

from experiments.locked import HERE, WORK, locked_copy
from experiments.progress import say
from experiments.resources import resources
from specdef.certify.api import certify_model
from specdef.models.bundled import BUNDLED
from specdef.models.sources import find_model
from specdef.report.write import write_report

RESULTS = HERE / "results" / "biographies"
CELLS = WORK / "certificate-cells"
"""Finished cells of all certificates; each keeps its own beside it as well."""
MODELS: dict[str, dict[str, str] | None] = {
    "unlocked": None,
    "paper": {"label": "paper 1e4", "preset": "paper", "multiplier": "1e4"},
    "exact": {"label": "exact 2^20", "preset": "exact", "multiplier": "2^20"},
    "ladder": {"label": "ladder", "preset": "ladder"},
}
THREATS = ("T0", "T1", "T2", "T3", "T4")


def folder_of(model: str) -> Path:
    """The model's folder; locks are made once."""
    original, entry = find_model(BUNDLED), MODELS[model]
    return original if entry is None else locked_copy(original, entry)


def run(name: str) -> Path:
    """Certify all, or only ``certificates-MODEL``; ``EXPERIMENT_THREATS=T0,T1`` tries these threat models alone."""
    _, _, only = name.partition("-")
    for model in MODELS if not only else (only,):
        print(model, flush=True)
        certify_model(
            folder_of(model),
            RESULTS / model,
            original=find_model(BUNDLED),
            threats=tuple(os.environ.get("EXPERIMENT_THREATS", ",".join(THREATS)).split(",")),
            resources=resources(),
            cells=CELLS,
            on_cell=say,
            on_stage=lambda stage: print(f"-- {stage}", flush=True),
            command=f"make experiment NAME=certificates-{model}",
        )
        write_report(RESULTS / model)
    return RESULTS / model / "certificate.md"
