"""Merge: multiply every injected compensation back into its weight. Two linear layers in a row are one.

The papers concede this attack (section 4, "an adversary may combine the compensated layers"). It needs no key: the
folder must tell transformers which layers are compensated, or nobody could load it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from specdef.attacks.rewriting import RewritePlan, Rewriting
from specdef.checkpoint.edits import NewTensor, edits_by_shard
from specdef.checkpoint.reader import Checkpoint

if TYPE_CHECKING:
    from specdef.locks.entry import LayerEntry


@dataclass(frozen=True)
class Merge(Rewriting):
    """Replace W~ and C by C W~ (or W~ C), in W~'s stored dtype; the product is computed in float64."""

    name: ClassVar[str] = "merge"
    knowledge: ClassVar[str] = "that config.json lists compensated layers, and that two linear layers in a row are one"
    undoes: ClassVar[bool] = True
    needs_lock: ClassVar[bool] = True
    frozen_wire: ClassVar[bool] = True

    def plan(self, checkpoint: Checkpoint, spool: Path) -> RewritePlan:
        """Multiply each compensation into its weight.

        Raises:
            SpecdefError: the folder lists no compensated layers, or lists them wrongly.
        """
        from specdef.attacks.rewrites.compensated import compensated_modules
        from specdef.linalg.compensation import TENSOR_NAMES

        modules = compensated_modules(checkpoint)
        where = checkpoint.locate()
        replaced: dict[str, NewTensor] = {}
        dropped: list[str] = []
        errors: list[float] = []
        for module, entry in modules.items():
            tensor = where[f"{module}.weight"][1]
            data = partial(_merged_bytes, checkpoint, module, entry, errors)
            replaced[tensor.name] = NewTensor(tensor.dtype, tensor.shape, data)
            dropped += [f"{module}.{part}" for part in TENSOR_NAMES[entry.form]]
        edits = edits_by_shard(checkpoint, replaced=replaced, dropped=dropped)
        removed = sum(math.prod(where[name][1].shape) for name in dropped)
        config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
        detail = f"{len(modules)} compensations multiplied into their weights"
        return RewritePlan(edits, config, len(modules), -removed, detail, errors)


KIND = Merge


def _merged_bytes(checkpoint: Checkpoint, module: str, entry: LayerEntry, errors: list[float]) -> bytes:
    from specdef.attacks.rewrites.compensated import relative_difference, stored_layer
    from specdef.attacks.rewrites.lazy_tensors import tensor_bytes
    from specdef.linalg.compensation import effective_weight

    weight, tensors = stored_layer(checkpoint, module, entry)
    effective = effective_weight(weight, tensors, entry.side)
    merged = effective.to(weight.dtype)
    errors.append(relative_difference(merged, effective))
    return tensor_bytes(merged.T if entry.transposed else merged)
