"""Locks that replace whole tensors: the key holds the originals' bytes, and `invert` puts them back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from specdef.checkpoint.edits import NewTensor, ShardEdits
from specdef.checkpoint.header import TensorInfo
from specdef.checkpoint.reader import Checkpoint
from specdef.checkpoint.small_files import rewritable
from specdef.locks.key import Key, stored_header, stored_tensors


def read_tensor(checkpoint: Checkpoint, shard: str, tensor: TensorInfo) -> torch.Tensor:
    """A tensor of a checkpoint in its stored dtype."""
    values = np.array(checkpoint.map_tensor(shard, tensor))
    return (
        torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
        if tensor.dtype == "BF16"
        else torch.from_numpy(values)
    )


def held_originals(checkpoint: Checkpoint, tensors: Iterable[str], shards: Iterable[str]) -> dict[str, bytes]:
    """What the key must hold, as raw bytes.

    Args:
        checkpoint: the original.
        tensors: names of those that are replaced.
        shards: those that change, whose headers are held.
    """
    where = checkpoint.locate()
    blobs = {f"header:{shard}": checkpoint.shards[shard].raw for shard in shards}
    for name in tensors:
        blobs[f"tensor:{name}"] = np.ascontiguousarray(checkpoint.map_tensor(*where[name])).tobytes()
    for name in rewritable(checkpoint):
        blobs[f"file:{name}"] = (checkpoint.folder / name).read_bytes()
    return blobs


def invert(checkpoint: Checkpoint, key: Key) -> dict[str, ShardEdits]:
    """Put back replaced tensors and the original headers."""
    return {shard: _restored(checkpoint, shard, key) for shard in checkpoint.shards}


def _restored(checkpoint: Checkpoint, shard: str, key: Key) -> ShardEdits:
    """One shard's edits; a shard without a stored header was not changed."""
    stored = stored_header(key, shard)
    if stored is None:
        return ShardEdits()
    header, tensors = stored
    prefix = checkpoint.shards[shard].prefix
    original = {prefix + tensor.name: tensor for tensor in tensors}
    replaced = {
        name: NewTensor(original[name].dtype, original[name].shape, lambda data=data: data)  # type: ignore[misc]
        for name, data in stored_tensors(key, original).items()
    }
    present = {t.name for t in checkpoint.shards[shard].tensors}
    return ShardEdits(replaced=replaced, dropped=frozenset(present - original.keys()), header=header)
