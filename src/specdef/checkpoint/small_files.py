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
from specdef.checkpoint.layout import CONFIG, WeightPlace, component_configs, weight_places
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


def changed_configs(checkpoint: Checkpoint, config: Mapping[str, Any]) -> dict[str, bytes]:
    """New contents of the configuration's files, where they are to say `config`; of a pipeline, those that change."""
    return {name: json_bytes(said) for name, said in component_configs(checkpoint.folder, config).items()}


def rewritable(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The small files of a folder that tell how its weights are read, which a change of tensors may rewrite."""
    places = weight_places(checkpoint.config, checkpoint.folder)
    names = [place.folder + name for place in places for name in (CONFIG, place.index)]
    return tuple(name for name in names if name in checkpoint.others)


def changed_index(checkpoint: Checkpoint, edits: Mapping[str, ShardEdits]) -> dict[str, bytes]:
    """New content of a sharded checkpoint's index, where edits add, replace or drop tensors; {} without an index.

    A pipeline has an index a component, with names of its own.

    Raises:
        CheckpointError: an index holds no weight map.
    """
    return {
        place.folder + place.index: _index(checkpoint, place, edits)
        for place in weight_places(checkpoint.config, checkpoint.folder)
        if place.folder + place.index in checkpoint.others
    }


def _index(checkpoint: Checkpoint, place: WeightPlace, edits: Mapping[str, ShardEdits]) -> bytes:
    path = checkpoint.folder / place.folder / place.index
    index = load_json_object(path)
    if not isinstance(index.get("weight_map"), dict):
        raise CheckpointError(f"File {shown(path)} must hold a `weight_map`. Download it again.")
    grown = 0
    for shard, edit in edits.items():
        if not shard.startswith(place.folder):
            continue
        sizes = {tensor.name: tensor.num_bytes for tensor in checkpoint.shards[shard].tensors}
        new = {name: num_bytes(tensor.dtype, tensor.shape) for name, tensor in {**edit.replaced, **edit.added}.items()}
        gone = [*edit.dropped, *edit.replaced]
        grown += sum(new.values()) - sum(sizes[name] for name in gone)
        added = [name.removeprefix(place.prefix) for name in edit.added]
        index["weight_map"] |= dict.fromkeys(added, shard.removeprefix(place.folder))
        for name in edit.dropped:
            index["weight_map"].pop(name.removeprefix(place.prefix), None)
    if isinstance(index.get("metadata"), dict) and isinstance(index["metadata"].get("total_size"), int):
        index["metadata"]["total_size"] += grown
    return json_bytes(index)


def json_bytes(value: Any) -> bytes:
    """JSON as Hugging Face folders hold it."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write small files by their paths relative to a folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
