"""Exact scalings of stored weights, as data, and the functions that apply them block by block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from specdef.checkpoint.edits import EditBlock, ShardEdits
from specdef.checkpoint.header import TensorInfo
from specdef.errors import PlanError
from specdef.linalg.exponent import Stored, all_finite, scale_stored

Locations = Mapping[str, tuple[str, TensorInfo]]
"""Tensor name -> (shard, entry)."""


@dataclass(frozen=True)
class Edit:
    """Scale positions of one tensor axis by ``2^exponent``.

    Attributes:
        tensor: tensor name.
        axis: axis of the tensor.
        indices: positions on that axis.
        exponent: the power of two.
        offset: what the runtime adds to the stored value before use (Gemma's norms: 1).
    """

    tensor: str
    axis: int
    indices: tuple[int, ...]
    exponent: int
    offset: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return {
            "tensor": self.tensor,
            "axis": self.axis,
            "indices": list(self.indices),
            "exponent": self.exponent,
            "offset": self.offset,
        }


def shard_edits(
    edits: Iterable[Edit],
    where: Locations,
    originals: Mapping[str, Stored] | None = None,
    loaded_in: Sequence[str] = (),
) -> dict[str, ShardEdits]:
    """Edits grouped by shard, as block functions for `checkpoint.writer.write_shards`.

    Args:
        edits: scalings in the order they are applied.
        where: tensor name -> (shard, entry).
        originals: stored values to put back at offset edits (unlocking only).
        loaded_in: dtypes that the weights are cast to as they load, in which the scalings must be exact too.
    """
    by_tensor: dict[str, list[Edit]] = {}
    for edit in edits:
        by_tensor.setdefault(edit.tensor, []).append(edit)
    by_shard: dict[str, dict[str, EditBlock]] = {}
    for name, tensor_edits in by_tensor.items():
        shard, tensor = where[name]
        by_shard.setdefault(shard, {})[name] = _block_editor(shard, tensor, tensor_edits, originals or {}, loaded_in)
    return {shard: ShardEdits(blocks=blocks) for shard, blocks in by_shard.items()}


def inverse(edits: Sequence[Edit]) -> list[Edit]:
    """The edits that undo `edits`."""
    return [Edit(e.tensor, e.axis, e.indices, -e.exponent, e.offset) for e in reversed(edits)]


def check_finite(shard: str, tensor: TensorInfo, block: Stored) -> None:
    """Raise PlanError when a block of weights holds NaN or infinity."""
    if not all_finite(block, tensor.dtype):
        raise PlanError(
            f"Weights must be finite; tensor {tensor.name} of file {shard} holds NaN or infinity. Repair it first."
        )


def _block_editor(
    shard: str,
    tensor: TensorInfo,
    edits: Sequence[Edit],
    originals: Mapping[str, Stored],
    loaded_in: Sequence[str],
) -> EditBlock:
    positions = [np.array(edit.indices) for edit in edits]

    def edit_block(block: Stored, first: int) -> None:
        for edit, all_positions in zip(edits, positions, strict=True):
            at = all_positions
            if edit.axis == 0:
                at = at[(at >= first) & (at < first + len(block))] - first
            if not len(at):
                continue
            index = (slice(None),) * edit.axis + (at,)
            if edit.offset and tensor.name in originals:
                block[index] = originals[tensor.name][at + first]
                continue
            values = block[index]
            scaled, exact = scale_stored(values, tensor.dtype, edit.exponent, edit.offset, loaded_in)
            if not exact.all():
                raise PlanError(
                    f"Tensor {tensor.name} of file {shard} cannot be scaled by 2^{edit.exponent} exactly where two "
                    "pairs meet. Use a smaller multiplier or another seed."
                )
            block[index] = scaled

    return edit_block
