"""What quantising a locked model afterwards costs: int8 weights of SmolLM2-135M, absmax, before and after a fold lock.

Simulated: every linear weight is rounded to 8 bits and back, one scale per row or per group of 64 inputs. The figure is
the mean KL of the quantised model from the float32 original over the benchmark's prompts, nats per token.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from specdef import lock
from specdef.models.bundled import BUNDLED
from specdef.models.loading import load
from specdef.models.probing import kl_divergence
from specdef.models.sources import find_model

SETTINGS: dict[str, dict[str, Any]] = {
    "every pair, 2^20 (preset)": {},
    "every pair, 2^8": {"multiplier": "2^8"},
    "vo and updown only, 2^20": {"pairs": ["vo", "updown"]},
}


def quantise(model: torch.nn.Module, group: int | None) -> torch.nn.Module:
    """Round every linear weight to 8 bits in place; one scale per row, or per `group` inputs of a row."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            weight = module.weight.data
            rows = weight.view(-1, group) if group else weight
            step = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-45) / 127
            weight.copy_(((rows / step).round() * step).view(weight.shape))
    return model


def main() -> None:
    """Measure and print."""
    original = find_model(BUNDLED)
    text = Path(__file__).with_name("prompts.txt").read_text()
    tokens = AutoTokenizer.from_pretrained(original)(text, return_tensors="pt").input_ids[:, :320]

    @torch.inference_mode()
    def logits(folder: Path, group: int | None, *, rounded: bool = True) -> torch.Tensor:
        model = load(folder, dtype=torch.float32)
        return (quantise(model, group) if rounded else model)(tokens).logits

    reference = logits(original, None, rounded=False)
    print(f"{'int8 weights of':30s}{'per row':>12s}{'groups of 64':>14s}   KL from the float32 original")
    with tempfile.TemporaryDirectory() as work:
        folders = {"the original": original}
        for number, (name, options) in enumerate(SETTINGS.items()):
            folders[name] = Path(work) / str(number)
            lock(original, folders[name], preset="exact", **options)
        for name, folder in folders.items():
            row, grouped = (kl_divergence(reference, logits(folder, group)) for group in (None, 64))
            print(f"{name:30s}{row:12.2e}{grouped:14.2e}")


if __name__ == "__main__":
    main()
