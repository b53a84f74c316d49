"""A tensor's bytes read block by block, hashed on the way: whole rows, or any bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from blake3 import blake3

from specdef.checkpoint.header import TensorInfo
from specdef.core.text import shown
from specdef.errors import CheckpointError
from specdef.linalg.exponent import NUMPY_DTYPES, Stored

BLOCK_BYTES = 512 << 10
"""Small enough to stay in the second-level cache while a block is scanned, edited and hashed three times."""

Progress = Callable[[int], None]
"""Called with the number of bytes just read."""


def read_blocks(
    source: Any, tensor: TensorInfo, read_hash: blake3, progress: Progress, *, by_rows: bool
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
                raise CheckpointError(
                    f"Tensor {shown(tensor.name)} ended early while it was read. Is the file changing?"
                )
            position += count
        read_hash.update(block)
        progress(len(block))
        yield start // row_bytes, block


def row_blocks(values: Stored) -> Iterator[slice]:
    """Rows (axis 0) of mapped values, a block at a time: what is computed with a block stays in the cache as well."""
    rows = max(1, BLOCK_BYTES * len(values) // max(1, values.nbytes))
    for first in range(0, len(values), rows):
        yield slice(first, min(first + rows, len(values)))


def as_array(block: memoryview, tensor: TensorInfo) -> Stored:
    """A block's bytes as rows of stored values."""
    return np.frombuffer(block, dtype=NUMPY_DTYPES[tensor.dtype]).reshape(-1, *tensor.shape[1:])
