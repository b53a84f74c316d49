"""Sharpen: a small spectral reparameterization as an attack on other defences (main paper, Appendix H).

A defence that slows training by a flat loss surface is undone by making it steeper, as long as training stays stable:
the lock's own construction with a small multiplier.
"""

from __future__ import annotations

import json
from pathlib import Path

from specdef.attacks.rewrites.apply import RewritePlan
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import SpecdefError
from specdef.locks.kinds.inject.matrices import choose_matrices
from specdef.locks.kinds.inject.options import InjectOptions
from specdef.locks.kinds.inject.plan import changed_files, inject_edits, plan_inject
from specdef.locks.recognise import resolve_locked


def plan_sharpen(
    checkpoint: Checkpoint, spool: Path, *, multiplier: float, top_k: int, matrices: int, seed: int
) -> RewritePlan:
    """Inflate the top-k singular values of some matrices by a small multiplier; compensated, so the function stays.

    Args:
        checkpoint: a published folder that holds no injected layers.
        spool: an existing scratch folder, which must last until the plan has been written.
        multiplier: alpha, above 1; the paper stays below what makes training diverge.
        top_k: k.
        matrices: how many to draw.
        seed: of the draw.

    Raises:
        SpecdefError: the folder holds injected layers already, or an option is out of range.
    """
    if checkpoint.config.get("quantization_config"):
        raise SpecdefError(f"`model` must hold no injected layers; {checkpoint.folder} does. Merge them first.")
    model = resolve_locked(checkpoint)
    options = InjectOptions(multiplier=multiplier, rank=top_k, num_matrices=matrices, seed=seed)
    names = choose_matrices(model, options, checkpoint.shapes)
    plan = plan_inject(checkpoint, model, options, names, spool)
    config = json.loads(changed_files(checkpoint, plan, {})["config.json"])
    added = sum(layer.num_extra for layer in plan.layers)
    detail = f"{len(names)} matrices sharpened by {multiplier:g}"
    return RewritePlan(inject_edits(checkpoint, plan), config, len(names), added, detail)
