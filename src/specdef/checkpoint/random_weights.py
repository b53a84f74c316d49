"""A checkpoint of random weights that lie nowhere: made tensor by tensor when they are read, of some shapes alone."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specdef.checkpoint.header import ShardHeader, TensorInfo
from specdef.checkpoint.reader import Checkpoint
from specdef.linalg.exponent import Stored

DTYPE, WIDTH, SPREAD = "BF16", 2, 0.02
"""bfloat16, two bytes, of the spread that weights start from."""
POOL = 1 << 20
"""Numbers that are drawn; every tensor repeats them from a place of its own."""


class RandomCheckpoint(Checkpoint):
    """A checkpoint whose tensors depend on their names and shapes alone."""

    def map_tensor(self, shard: str, tensor: TensorInfo) -> Stored:
        """The tensor's values in bfloat16 as uint16; see `Checkpoint`."""
        size = int(np.prod(tensor.shape))
        values = np.resize(np.roll(_pool(), zlib.crc32(tensor.name.encode())), size)
        return values.reshape(tensor.shape)


def random_checkpoint(folder: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Checkpoint:
    """What a folder with this configuration would hold, with random weights in bfloat16.

    Args:
        folder: of the configuration.
        config: see `Checkpoint`.
        shapes: tensor name -> shape.
    """
    tensors, start = [], 0
    for name, shape in shapes.items():
        end = start + WIDTH * int(np.prod(shape))
        tensors.append(TensorInfo(name, DTYPE, tuple(shape), start, end))
        start = end
    return RandomCheckpoint(folder, config, {"random": ShardHeader(b"", None, tuple(tensors))}, ())


@functools.cache
def _pool() -> npt.NDArray[np.uint16]:
    drawn = np.random.default_rng(0).standard_normal(POOL, dtype=np.float32) * np.float32(SPREAD)
    return (drawn.view(np.uint32) >> 16).astype(np.uint16)
