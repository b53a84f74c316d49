"""Write the shards of a new model folder, streamed block by block and hashed as they go."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from blake3 import blake3

from specdef.checkpoint.blocks import Progress, as_array, read_blocks
from specdef.checkpoint.digests import Digests
from specdef.checkpoint.each_shard import each_shard
from specdef.checkpoint.edits import EditBlock, NewTensor, ShardEdits
from specdef.checkpoint.header import ShardHeader, TensorInfo, num_bytes, write_header
from specdef.checkpoint.reader import Checkpoint
from specdef.linalg.exponent import NUMPY_DTYPES, Stored

CheckBlock = Callable[[str, TensorInfo, Stored], None]
"""Called with (shard, tensor, some of its stored values, flat)."""


def write_shards(
    checkpoint: Checkpoint,
    target: Path,
    edits: Mapping[str, ShardEdits],
    *,
    check: CheckBlock | None = None,
    progress: Progress | None = None,
    num_workers: int = 2,
) -> dict[str, Digests]:
    """Stream every shard into `target` with its edits; untouched tensors are copied as bytes.

    Args:
        checkpoint: the source.
        target: an existing folder.
        edits: shard name -> edits; shards not named are copied.
        check: called with (shard, tensor, block) for every block of floating-point data read; raises to refuse.
        progress: called with the number of bytes just read.
        num_workers: shards processed at once.

    Returns:
        Shard name -> digests.
    """

    def one(shard: str, read: Progress) -> Digests:
        return _write_shard(checkpoint, shard, target / shard, edits.get(shard, ShardEdits()), check, read)

    return each_shard(checkpoint.shards, one, progress=progress, num_workers=num_workers)


class _Output:
    """A file being written, hashed whole and per tensor as it goes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.whole = blake3()
        self.tensors: dict[str, str] = {}

    def raw(self, data: bytes) -> None:
        self.file.write(data)
        self.whole.update(data)

    def tensor(self, name: str, blocks: Iterator[Any]) -> None:
        hasher = blake3()
        for block in blocks:
            view = memoryview(block).cast("B")
            hasher.update(view)
            self.whole.update(view)
            self.file.write(view)
        self.tensors[name] = hasher.hexdigest()


def _write_shard(
    checkpoint: Checkpoint,
    shard: str,
    path: Path,
    edits: ShardEdits,
    check: CheckBlock | None,
    progress: Progress,
) -> Digests:
    header = checkpoint.shards[shard]
    source_path = checkpoint.folder / shard
    path.parent.mkdir(parents=True, exist_ok=True)
    with source_path.open("rb", buffering=0) as source, path.open("wb") as file:
        shutil.copymode(source_path, path)
        output = _Output(file)
        read_hash = blake3(source.read(len(header.raw)))
        output.raw(edits.header or _new_header(header, edits))
        for tensor in header.tensors:
            blocks = read_blocks(source, tensor, read_hash, progress, by_rows=tensor.name in edits.blocks)
            if check is not None:
                blocks = _checked(blocks, shard, tensor, check)
            if tensor.name in edits.dropped or tensor.name in edits.replaced:
                for _ in blocks:
                    pass
            if tensor.name in edits.replaced:
                output.tensor(tensor.name, iter([_produce(edits.replaced[tensor.name])]))
            elif tensor.name in edits.blocks:
                output.tensor(tensor.name, _edited(blocks, tensor, edits.blocks[tensor.name]))
            elif tensor.name not in edits.dropped:
                output.tensor(tensor.name, (block for _, block in blocks))
        for name, new in edits.added.items():
            output.tensor(name, iter([_produce(new)]))
    return Digests(read_hash.hexdigest(), output.whole.hexdigest(), output.tensors)


def _new_header(header: ShardHeader, edits: ShardEdits) -> bytes:
    if not (edits.replaced or edits.added or edits.dropped):
        return header.raw
    layout = {
        t.name: (edits.replaced[t.name].dtype, edits.replaced[t.name].shape)
        if t.name in edits.replaced
        else (t.dtype, t.shape)
        for t in header.tensors
        if t.name not in edits.dropped
    }
    layout |= {name: (new.dtype, new.shape) for name, new in edits.added.items()}
    return write_header({name.removeprefix(header.prefix): entry for name, entry in layout.items()}, header.metadata)


def _produce(new: NewTensor) -> bytes:
    data = new.data()
    assert len(data) == num_bytes(new.dtype, new.shape)
    return data


def _checked(
    blocks: Iterator[tuple[int, memoryview]], shard: str, tensor: TensorInfo, check: CheckBlock
) -> Iterator[tuple[int, memoryview]]:
    for first, block in blocks:
        if tensor.dtype in NUMPY_DTYPES:
            check(shard, tensor, np.frombuffer(block, dtype=NUMPY_DTYPES[tensor.dtype]))
        yield first, block


def _edited(blocks: Iterator[tuple[int, memoryview]], tensor: TensorInfo, edit: EditBlock) -> Iterator[memoryview]:
    for first, block in blocks:
        edit(as_array(block, tensor), first)
        yield block
