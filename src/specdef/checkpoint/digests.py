"""BLAKE3 digests of files and of the tensors in them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from specdef.checkpoint.blocks import BLOCK_BYTES, Progress, read_blocks
from specdef.checkpoint.each_shard import each_shard
from specdef.checkpoint.reader import Checkpoint


@dataclass(frozen=True)
class Digests:
    """BLAKE3 digests, hexadecimal: of the file read, of the file written, of each tensor written."""

    source: str
    target: str
    tensors: Mapping[str, str]


def file_digest(path: Path) -> str:
    """BLAKE3 digest of a file, hexadecimal; the same as ``b3sum`` prints."""
    hasher = blake3()
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(BLOCK_BYTES)
        while count := file.readinto(buffer):
            hasher.update(memoryview(buffer)[:count])
    return hasher.hexdigest()


def read_digests(checkpoint: Checkpoint) -> dict[str, Digests]:
    """Digests of every shard as it is on disk, in one pass; `source` and `target` are the same."""
    return each_shard(checkpoint.shards, functools.partial(_shard_digests, checkpoint))


def _shard_digests(checkpoint: Checkpoint, shard: str, progress: Progress) -> Digests:
    header = checkpoint.shards[shard]
    tensors = {}
    with (checkpoint.folder / shard).open("rb", buffering=0) as source:
        whole = blake3(source.read(len(header.raw)))
        for tensor in header.tensors:
            hasher = blake3()
            for _, block in read_blocks(source, tensor, whole, progress, by_rows=False):
                hasher.update(block)
            tensors[tensor.name] = hasher.hexdigest()
    return Digests(whole.hexdigest(), whole.hexdigest(), tensors)
