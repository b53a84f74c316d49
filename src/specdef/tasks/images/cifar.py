"""CIFAR-10 and CIFAR-100 as their authors publish them for Python: pickles, of which only numbers and text are read.

A pickle may name any function to be called while it is read. Here it may name four, all of this file: they hold what an
array is made of, and numpy makes the array from bytes afterwards. Everything else is refused.

Source: https://www.cs.toronto.edu/~kriz/cifar.html: ``data`` [n, 3072] in bytes, red, green, blue, row by row.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specdef.errors import TaskError
from specdef.models.loading import reason

PICKLE = b"\x80"
"""How a pickle of protocol 2 or later starts."""
SHAPE = (3, 32, 32)
LABELS = ("labels", "fine_labels")
"""Of CIFAR-10 and CIFAR-100."""
BATCHES, WHOLE = "data_batch_*", "train"
"""What a folder's files of training images are called: of CIFAR-10 and CIFAR-100."""
DTYPES = ("u1", "i1", "i2", "i4", "i8")
"""Of arrays that are read."""


def cifar_files(folder: Path) -> list[Path]:
    """A folder's batches of training images, in order; none where it is no folder of CIFAR."""
    found = sorted(path for path in folder.glob(BATCHES) if path.is_file())
    whole = folder / WHOLE
    return found or ([whole] if is_pickle(whole) else [])


def is_pickle(path: Path) -> bool:
    """Whether a file is one, by its first byte."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(1) == PICKLE


def read_cifar(paths: Sequence[Path], *, argument: str = "path") -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Images [n, 3, 32, 32] and labels [n] of some batches, one after the other; of CIFAR-100, the hundred fine labels.

    Args:
        paths: such as ``data_batch_1``.
        argument: what the user gave it as.

    Raises:
        TaskError: a file cannot be read, holds something other than a batch, or holds code.
    """
    batches = [_batch(path, argument) for path in paths]
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def _batch(path: Path, argument: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    held = _unpickled(path, argument)
    named = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in held.items()}
    label = next((name for name in LABELS if name in named), None)
    pixels = named.get("data")
    if label is None or not isinstance(pixels, _Array):
        raise TaskError(
            f"`{argument}` must be a batch of CIFAR, with data and labels or fine_labels; {path} holds "
            f"{', '.join(sorted(map(str, named))) or 'nothing'}. Give data_batch_1 or train, or their folder."
        )
    try:
        images, labels = pixels.numbers(), _numbers(named[label])
    except (TypeError, ValueError, OverflowError) as error:
        raise TaskError(
            f"`{argument}` must hold arrays of whole numbers; {path} does not ({reason(error)}). Download it again."
        ) from error
    width = SHAPE[0] * SHAPE[1] * SHAPE[2]
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != width or labels.shape != images.shape[:1]:
        raise TaskError(
            f"`{argument}` must hold images in {width} bytes each and a label each; {path} holds {images.dtype} of "
            f"shape {list(images.shape)} and labels of shape {list(labels.shape)}. Download it again."
        )
    return images.reshape(-1, *SHAPE), labels


def _numbers(held: Any) -> npt.NDArray[Any]:
    if isinstance(held, _Array):
        return held.numbers()
    if not isinstance(held, list) or not all(type(one) is int for one in held):
        raise TypeError(f"labels are a {type(held).__name__} of something else")
    return np.array(held, dtype=np.int64)


def _unpickled(path: Path, argument: str) -> Mapping[Any, Any]:
    try:
        with path.open("rb") as file:
            held = _PlainData(file, encoding="bytes").load()
    except _Code as error:
        raise TaskError(
            f"`{argument}` must hold arrays and plain data; {path} asks for {error} when it is read, which can run "
            "code. Get it from another place, or as npz."
        ) from error
    except Exception as error:  # whatever a damaged file makes pickle raise
        raise TaskError(
            f"`{argument}` must be a readable batch of CIFAR; {path} is not ({reason(error)}). Download it again."
        ) from error
    if not isinstance(held, dict):
        raise TaskError(
            f"`{argument}` must be a batch of CIFAR, with data and labels; {path} holds a {type(held).__name__}. "
            "Give data_batch_1 or train, or their folder."
        )
    return held


class _Code(Exception):
    """A pickle names something that is no plain data."""


class _Dtype:
    """What a pickle says of an array's dtype."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name.decode("latin1") if isinstance(name, bytes) else name
        self.order = "|"

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        self.order = order.decode("latin1") if isinstance(order, bytes) else order


class _Array:
    """What a pickle says of an array: numbers only once it has been looked at."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def numbers(self) -> npt.NDArray[Any]:
        """The array.

        Raises:
            TypeError: it is none of whole numbers.
            ValueError: its bytes are not as many as its shape says.
        """
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise TypeError("an array is not described as numpy does")
        _, shape, dtype, fortran, data = self.state
        if not isinstance(dtype, _Dtype) or dtype.name not in DTYPES or dtype.order not in ("|", "<", ">", "="):
            raise TypeError(f"an array is of {getattr(dtype, 'name', dtype)}")
        if not isinstance(data, bytes) or not isinstance(shape, tuple) or not all(type(n) is int for n in shape):
            raise TypeError("an array is not described as numpy does")
        return np.frombuffer(data, np.dtype(dtype.order + dtype.name)).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _latin1(text: Any, encoding: Any) -> bytes:
    """How Python 3 pickles bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise TypeError("bytes are not described as Python does")
    return text.encode("latin1")


_KNOWN = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _latin1,
}


class _PlainData(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _KNOWN.get((module, name))
        if found is None:
            raise _Code(f"{module}.{name}")
        return found
