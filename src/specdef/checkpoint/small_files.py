"""The files of a model folder that are not shards: carried over, or written anew where tensors changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from specdef.checkpoint.digests import file_digest
from specdef.checkpoint.edits import ShardEdits
from specdef.checkpoint.header import load_json_object, num_bytes
from specdef.checkpoint.layout import INDEX
from specdef.checkpoint.reader import Checkpoint
from specdef.core.text import shown
from specdef.errors import CheckpointError


def copy_others(checkpoint: Checkpoint, target: Path, *, skip: Sequence[str] = ()) -> dict[str, str]:
    """Carry over every file that is not a shard.

    Returns:
        Relative path -> BLAKE3 digest, hexadecimal.
    """
    digests = {}
    for name in checkpoint.others:
        if name in skip:
            continue
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(checkpoint.folder / name, destination)
        shutil.copymode(checkpoint.folder / name, destination)
        digests[name] = file_digest(destination)
    return digests


def changed_index(checkpoint: Checkpoint, edits: Mapping[str, ShardEdits]) -> dict[str, bytes]:
    """New content of a sharded checkpoint's index, where edits add, replace or drop tensors; {} without an index.

    Raises:
        CheckpointError: the index holds no weight map.
    """
    if INDEX not in checkpoint.others:
        return {}
    index = load_json_object(checkpoint.folder / INDEX)
    if not isinstance(index.get("weight_map"), dict):
        raise CheckpointError(f"File {shown(checkpoint.folder / INDEX)} must hold a `weight_map`. Download it again.")
    grown = 0
    for shard, edit in edits.items():
        sizes = {tensor.name: tensor.num_bytes for tensor in checkpoint.shards[shard].tensors}
        new = {name: num_bytes(tensor.dtype, tensor.shape) for name, tensor in {**edit.replaced, **edit.added}.items()}
        gone = [*edit.dropped, *edit.replaced]
        grown += sum(new.values()) - sum(sizes[name] for name in gone)
        index["weight_map"] |= dict.fromkeys(edit.added, shard)
        for name in edit.dropped:
            index["weight_map"].pop(name, None)
    if isinstance(index.get("metadata"), dict) and isinstance(index["metadata"].get("total_size"), int):
        index["metadata"]["total_size"] += grown
    return {INDEX: json_bytes(index)}


def json_bytes(value: Any) -> bytes:
    """JSON as Hugging Face folders hold it."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
