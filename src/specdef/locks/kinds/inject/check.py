"""Is an inject lock in the weights: its multiplier recomputed from every W~ and C that config.json lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import safe_open

from specdef.checkpoint.expect import expect_tensors
from specdef.checkpoint.header import TensorInfo
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import CheckpointError
from specdef.linalg.compensation import TENSOR_NAMES, measure_lock
from specdef.linalg.matrix import matrix_shape
from specdef.locks.entry import LayerEntry

STRENGTH_TOLERANCE = 0.05
"""Relative; how far the recomputed multiplier may lie from the claimed one."""


def lock_present(checkpoint: Checkpoint, strength: Mapping[str, Any]) -> tuple[bool, str]:
    """Recompute the lock from the stored W~ and C.

    Args:
        checkpoint: the locked folder.
        strength: the manifest's claims: multiplier, top_k, matrices.

    Returns:
        Whether every locked matrix shows the claimed multiplier, and what was found, in words.

    Raises:
        CheckpointError: a layer's tensors are not of the dtype and shape its entry in config.json says.
    """
    modules = locked_modules(checkpoint)
    where = checkpoint.locate()
    claimed, top_k = float(strength["multiplier"]), int(strength["top_k"])
    if sorted(modules) != sorted(strength["matrices"]):
        return False, f"{len(modules)} locked matrices in config.json, {len(strength['matrices'])} in the manifest"
    found: list[float] = []
    for module, entry in modules.items():
        names = [f"{module}.{part}" for part in ("weight", *TENSOR_NAMES[entry.form])]
        if any(name not in where for name in names):
            return False, f"tensors of the locked layer {module} are missing"
        if entry.rank != top_k:
            return False, f"layer {module} has rank {entry.rank}, the manifest claims top-k {top_k}"
        expect_tensors(checkpoint, entry.tensors(module, where[f"{module}.weight"][1].shape))
        tensors = {name.rsplit(".", 1)[-1]: load_tensor(checkpoint, *where[name]) for name in names}
        found.append(_multiplier(tensors.pop("weight"), tensors, entry))
    passed = all(abs(value / claimed - 1) <= STRENGTH_TOLERANCE for value in found)
    spread = f"{min(found):.4g} to {max(found):.4g}"
    return passed, f"multipliers recomputed from {len(found)} matrices: {spread}, claimed {claimed:g}"


def locked_modules(checkpoint: Checkpoint) -> dict[str, LayerEntry]:
    """The locked layers config.json lists: module -> entry.

    Raises:
        CheckpointError: it lists none, or an entry is malformed.
    """
    quantization = checkpoint.config.get("quantization_config")
    modules = quantization.get("modules") if isinstance(quantization, dict) else None
    if not isinstance(modules, dict) or not all(isinstance(entry, dict) for entry in modules.values()):
        raise CheckpointError(
            "`quantization_config.modules` in config.json must describe the locked layers. Restore it."
        )
    return {str(module): LayerEntry.parse(module, entry) for module, entry in modules.items()}


def _multiplier(weight: torch.Tensor, tensors: dict[str, torch.Tensor], entry: LayerEntry) -> float:
    if entry.form == "diagonal":
        return float(1 / tensors["compensation_factor"].double().median())
    matrix = weight.T if entry.transposed else weight.reshape(matrix_shape(weight.shape))
    return float(measure_lock(matrix, tensors, entry.side, entry.rank).ratio.median())


def load_tensor(checkpoint: Checkpoint, shard: str, tensor: TensorInfo) -> torch.Tensor:
    """A tensor of a checkpoint, of any dtype, as safetensors loads it."""
    with safe_open(checkpoint.folder / shard, "pt") as file:
        value: torch.Tensor = file.get_tensor(tensor.name.removeprefix(checkpoint.shards[shard].prefix))
    return value
