"""Certificates of the small text-to-image model: a class erased, immunised, and behind both locks. Small budgets.

The undefended model is `esd`'s, from which the class has been taken: the given one draws it, and nothing could be
learned. `esd` itself is certified beside itself, as the unlocked language model is.
"""

from __future__ import annotations

from pathlib import Path

import torch

from experiments import diffusion
from experiments.certificates import certify
from experiments.locked import HERE, WORK
from specdef.tasks.base import TaskSpec
from specdef.training.recipe import Recipe

RESULTS = HERE / "results" / "diffusion"
CELLS = WORK / "certificate-cells-diffusion"
MODELS = {
    "esd": ("esd", "esd"),
    "imma": ("esd, imma", "esd"),
    "exact": ("esd, exact 2^20", "esd"),
    "inject": ("esd, inject 1e4", "esd"),
}
"""Name -> the model that is certified, and the undefended one."""
RECIPE = Recipe(lr=1e-3, steps=5 * diffusion.EPOCH, batch_size=8, eval_every=20, retain_weight=0.25)
"""Five epochs of 64 images."""
WINDOW = (3e-4, 1e-3)
"""Rates of ordinary fine-tuning of this model."""


def run(name: str) -> Path:
    """Certify all, or only ``certificates-diffusion-MODEL``."""
    only = name.removeprefix("certificates-diffusion").removeprefix("-")
    torch.set_flush_denormal(True)
    diffusion.PLACE.mkdir(parents=True, exist_ok=True)
    folders, concept = diffusion.models(), diffusion.concept()
    for model in (only,) if only else MODELS:
        print(model, flush=True)
        label, original = MODELS[model]
        certify(
            f"certificates-diffusion-{model}",
            folders[label],
            folders[original],
            RESULTS / model,
            CELLS,
            task=TaskSpec("concept", str(concept)),
            text=concept,
            recipe=RECIPE,
            window=WINDOW,
            effort="quick",
        )
    return RESULTS / model / "certificate.md"
