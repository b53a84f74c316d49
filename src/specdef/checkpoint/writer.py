"""Write the shards of a new model folder, streamed block by block and hashed as they go."""

from __future__ import annotations

import json
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from blake3 import blake3

from specdef.checkpoint.header import ShardHeader, TensorInfo, load_json_object, num_bytes, write_header
from specdef.checkpoint.reader import INDEX, Checkpoint
from specdef.core.atomic import uninterrupted
from specdef.errors import CheckpointError
from specdef.linalg.exponent import NUMPY_DTYPES, Stored

BLOCK_BYTES = 512 << 10
"""Small enough to stay in the second-level cache while a block is scanned, edited and hashed three times."""

EditBlock = Callable[[Stored, int], None]
"""Edit a block of a tensor's rows in place; the second argument is the number of the block's first row."""
CheckBlock = Callable[[str, TensorInfo, Stored], None]
"""Called with (shard, tensor, some of its stored values, flat)."""
Progress = Callable[[int], None]


@dataclass(frozen=True)
class NewTensor:
    """A whole tensor's new content, produced only when its turn to be written comes."""

    dtype: str
    shape: tuple[int, ...]
    data: Callable[[], bytes]


@dataclass(frozen=True)
class ShardEdits:
    """What changes in one shard.

    Attributes:
        blocks: tensor name -> edit applied to its blocks of rows, shape and dtype kept.
        replaced: tensor name -> new content under the same name.
        added: name -> tensor appended after the others.
        dropped: names left out.
        header: exact header bytes to write (unlock restores the original's); computed when None.
    """

    blocks: Mapping[str, EditBlock] = field(default_factory=dict)
    replaced: Mapping[str, NewTensor] = field(default_factory=dict)
    added: Mapping[str, NewTensor] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    header: bytes | None = None


def edits_by_shard(
    checkpoint: Checkpoint,
    *,
    replaced: Mapping[str, NewTensor],
    added: Mapping[str, Mapping[str, NewTensor]] | None = None,
    dropped: Iterable[str] = (),
) -> dict[str, ShardEdits]:
    """Whole-tensor changes, sorted by the shard they fall in.

    Args:
        checkpoint: where the tensors lie.
        replaced: tensor name -> new content.
        added: tensor name -> new tensors by name, written to the same shard.
        dropped: names left out.
    """
    shard_of = {name: shard for name, (shard, _) in checkpoint.locate().items()}
    sorted_replaced: dict[str, dict[str, NewTensor]] = defaultdict(dict)
    sorted_added: dict[str, dict[str, NewTensor]] = defaultdict(dict)
    sorted_dropped: dict[str, set[str]] = defaultdict(set)
    for name, tensor in replaced.items():
        sorted_replaced[shard_of[name]][name] = tensor
    for neighbour, tensors in (added or {}).items():
        sorted_added[shard_of[neighbour]].update(tensors)
    for name in dropped:
        sorted_dropped[shard_of[name]].add(name)
    shards = [shard for shard in checkpoint.shards if shard in {*sorted_replaced, *sorted_added, *sorted_dropped}]
    return {
        shard: ShardEdits(
            replaced=sorted_replaced[shard], added=sorted_added[shard], dropped=frozenset(sorted_dropped[shard])
        )
        for shard in shards
    }


@dataclass(frozen=True)
class Digests:
    """BLAKE3 digests, hexadecimal: of the file read, of the file written, of each tensor written."""

    source: str
    target: str
    tensors: Mapping[str, str]


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
    stop = threading.Event()

    def read(count: int) -> None:
        if stop.is_set():
            raise CancelledError
        if progress is not None:
            progress(count)

    def one(shard: str) -> Digests:
        return _write_shard(checkpoint, shard, target / shard, edits.get(shard, ShardEdits()), check, read)

    pool = ThreadPoolExecutor(max_workers=min(num_workers, len(checkpoint.shards)))
    try:
        with uninterrupted():  # an interrupt while a thread starts would leave it running, unknown to its pool
            written = {shard: pool.submit(one, shard) for shard in checkpoint.shards}
        return {shard: future.result() for shard, future in written.items()}
    finally:
        stop.set()
        with uninterrupted():  # nothing writes into `target` any more when it is removed
            pool.shutdown(cancel_futures=True)


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
        raise CheckpointError(f"File {checkpoint.folder / INDEX} must hold a `weight_map`. Download it again.")
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


def file_digest(path: Path) -> str:
    """BLAKE3 digest of a file, hexadecimal; the same as ``b3sum`` prints."""
    hasher = blake3()
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(BLOCK_BYTES)
        while count := file.readinto(buffer):
            hasher.update(memoryview(buffer)[:count])
    return hasher.hexdigest()


def read_digests(checkpoint: Checkpoint, shard: str) -> Digests:
    """Digests of a shard as it is on disk, in one pass; `source` and `target` are the same."""
    header = checkpoint.shards[shard]
    tensors = {}
    with (checkpoint.folder / shard).open("rb", buffering=0) as source:
        whole = blake3(source.read(len(header.raw)))
        for tensor in header.tensors:
            hasher = blake3()
            for _, block in _read_blocks(source, tensor, whole, None, by_rows=False):
                hasher.update(block)
            tensors[tensor.name] = hasher.hexdigest()
    return Digests(whole.hexdigest(), whole.hexdigest(), tensors)


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
    with source_path.open("rb", buffering=0) as source, path.open("wb") as file:
        shutil.copymode(source_path, path)
        output = _Output(file)
        read_hash = blake3(source.read(len(header.raw)))
        output.raw(edits.header or _new_header(header, edits))
        for tensor in header.tensors:
            blocks = _read_blocks(source, tensor, read_hash, progress, by_rows=tensor.name in edits.blocks)
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
    return write_header(layout, header.metadata)


def _produce(new: NewTensor) -> bytes:
    data = new.data()
    assert len(data) == num_bytes(new.dtype, new.shape)
    return data


def _read_blocks(
    source: Any, tensor: TensorInfo, read_hash: blake3, progress: Progress | None, *, by_rows: bool
) -> Iterator[tuple[int, memoryview]]:
    """Blocks of a tensor as views of one reused buffer: whole rows (axis 0) with the number of the first, or bytes."""
    num_rows = tensor.shape[0] if tensor.shape else 1
    row_bytes = tensor.num_bytes // num_rows if by_rows and num_rows else 1
    rows_per_block = max(1, BLOCK_BYTES // max(1, row_bytes))
    buffer = memoryview(bytearray(min(rows_per_block * row_bytes, tensor.num_bytes)))
    for start in range(0, tensor.num_bytes, max(1, len(buffer))):
        block = buffer[: min(len(buffer), tensor.num_bytes - start)]
        position = 0
        while position < len(block):
            count = source.readinto(block[position:])
            if not count:
                raise CheckpointError(f"Tensor {tensor.name} ended early while it was read. Is the file changing?")
            position += count
        read_hash.update(block)
        if progress is not None:
            progress(len(block))
        yield start // row_bytes, block


def as_array(block: memoryview, tensor: TensorInfo) -> Stored:
    """A block's bytes as rows of stored values."""
    return np.frombuffer(block, dtype=NUMPY_DTYPES[tensor.dtype]).reshape(-1, *tensor.shape[1:])


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
