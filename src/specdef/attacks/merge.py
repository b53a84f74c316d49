"""Merge: multiply every injected compensation back into its weight. Two linear layers in a row are one.

The papers concede this attack (section 4, "an adversary may combine the compensated layers"). It needs no key: the
folder must tell transformers which layers are compensated, or nobody could load it.
"""

from __future__ import annotations

import math
from functools import partial

import torch

from specdef.attacks.rewriting import RewritePlan
from specdef.checkpoint.reader import Checkpoint
from specdef.checkpoint.writer import NewTensor, ShardEdits
from specdef.errors import SpecdefError
from specdef.linalg.deform import TENSOR_NAMES, effective_weight
from specdef.locks.entry import QUANT_METHOD, LayerEntry
from specdef.locks.inject import load_tensor, locked_modules


def plan_merge(checkpoint: Checkpoint) -> RewritePlan:
    """Replace W~ and C by C W~ (or W~ C), in W~'s stored dtype; the product is computed in float64.

    Raises:
        SpecdefError: the folder lists no compensated layers.
    """
    modules = compensated_modules(checkpoint)
    where = checkpoint.locate()
    replaced: dict[str, dict[str, NewTensor]] = {}
    dropped: dict[str, set[str]] = {}
    removed = 0
    for module, entry in modules.items():
        shard, tensor = where[f"{module}.weight"]
        data = partial(_merged_bytes, checkpoint, module, entry)
        replaced.setdefault(shard, {})[tensor.name] = NewTensor(tensor.dtype, tensor.shape, data)
        for part in TENSOR_NAMES[entry.form]:
            name = f"{module}.{part}"
            dropped.setdefault(where[name][0], set()).add(name)
            removed += math.prod(where[name][1].shape)
    edits = {
        shard: ShardEdits(replaced=replaced.get(shard, {}), dropped=frozenset(dropped.get(shard, set())))
        for shard in replaced.keys() | dropped.keys()
    }
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    detail = f"{len(modules)} compensations multiplied into their weights"
    return RewritePlan(edits, config, len(modules), -removed, detail)


def compensated_modules(checkpoint: Checkpoint) -> dict[str, LayerEntry]:
    """The layers of an inject lock, from config.json.

    Raises:
        SpecdefError: there are none.
    """
    quantization = checkpoint.config.get("quantization_config")
    if not isinstance(quantization, dict) or quantization.get("quant_method") != QUANT_METHOD:
        raise SpecdefError(
            f"`model` must hold layers with a compensation beside them; {checkpoint.folder} has none. "
            "Use rebalance for channels that are scaled."
        )
    return locked_modules(checkpoint)


def stored_layer(
    checkpoint: Checkpoint, module: str, entry: LayerEntry
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """W~ as [out, in] and the compensation's tensors, as stored."""
    where = checkpoint.locate()
    names = ("weight", *TENSOR_NAMES[entry.form])
    missing = [name for name in names if f"{module}.{name}" not in where]
    if missing:
        raise SpecdefError(f"Tensor {module}.{missing[0]} must exist; the checkpoint does not hold it. Get it whole.")
    tensors = {name: load_tensor(checkpoint, *where[f"{module}.{name}"]) for name in names}
    weight = tensors.pop("weight")
    return (weight.T if entry.transposed else weight), tensors


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """A tensor's numbers as safetensors stores them."""
    return bytes(tensor.contiguous().view(torch.uint8).numpy().data)


def _merged_bytes(checkpoint: Checkpoint, module: str, entry: LayerEntry) -> bytes:
    weight, tensors = stored_layer(checkpoint, module, entry)
    merged = effective_weight(weight, tensors, entry.side).to(weight.dtype)
    return tensor_bytes(merged.T if entry.transposed else merged)
