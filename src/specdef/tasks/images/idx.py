"""IDX files, as MNIST is published in: two files, one of images and one of labels, gzipped or not.

Source: the format's description on the MNIST page (Y. LeCun et al.): two zero bytes, a type, the number of axes, a
big-endian 32-bit size an axis, then the numbers.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specdef.errors import TaskError

GZIP = b"\x1f\x8b"
UNSIGNED_BYTES = 0x08
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def read_idx_pair(path: Path, *, argument: str = "path") -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Images and labels: of a file of images, whose file of labels lies beside it under the usual name.

    Args:
        path: such as ``train-images-idx3-ubyte.gz``; ``train-labels-idx1-ubyte``, or its ``.gz``, is read too.
        argument: what the user gave it as.

    Raises:
        TaskError: a file is missing, truncated, too long, or not in this format.
    """
    if IMAGES not in path.name:
        raise TaskError(f"`{argument}` must name the file of images, such as train-{IMAGES}; got {path}.")
    stem = path.name.replace(IMAGES, LABELS).removesuffix(".gz")
    beside = [path.with_name(name) for name in (stem, f"{stem}.gz")]
    labels = next((found for found in beside if found.is_file()), None)
    if labels is None:
        raise TaskError(
            f"`{argument}` must have its labels beside it; {beside[0]} does not exist. Put it there, or its .gz."
        )
    return read_idx(path, axes=3, argument=argument), read_idx(labels, axes=1, argument=argument)


def read_idx(path: Path, *, axes: int, argument: str = "path") -> npt.NDArray[np.uint8]:
    """The bytes of an IDX file.

    Args:
        path: gzipped or not; its first bytes tell.
        axes: how many it must have.
        argument: what the user gave it as.

    Raises:
        TaskError: it cannot be read or unpacked, has another type or number of axes, or is not as long as it says.
    """
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw.startswith(GZIP) else raw
    except (OSError, EOFError, zlib.error) as error:
        raise TaskError(
            f"`{argument}` must be a readable IDX file; {path} is not ({error}). Download it again."
        ) from error
    start = 4 + 4 * axes
    if len(data) < start or data[:4] != bytes((0, 0, UNSIGNED_BYTES, axes)):
        raise TaskError(
            f"`{argument}` must be an IDX file of unsigned bytes with {axes} axes; {path} starts with "
            f"{data[:4].hex()!r}. Give a file that starts with {bytes((0, 0, UNSIGNED_BYTES, axes)).hex()!r}."
        )
    sizes = [int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4)]
    if len(data) - start != math.prod(sizes):
        raise TaskError(
            f"`{argument}` must be a whole IDX file; {path} says {' x '.join(map(str, sizes))} bytes and holds "
            f"{len(data) - start}. Download it again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(sizes)
