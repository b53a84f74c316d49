"""npz files: numpy archives with one array of images and one of labels. Pickled objects are never loaded."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specdef.errors import TaskError

ZIP = b"PK\x03\x04"
"""How an archive with something in it starts; numpy takes any other file for a pickle."""
FAULTS = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    RuntimeError,
    MemoryError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy and zipfile raise for a damaged file."""
IMAGES, LABELS = ("images", "x", "data"), ("labels", "y", "targets")


def read_npz(path: Path, *, argument: str = "path") -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Images and labels of an npz file.

    Args:
        path: holds ``images`` (or ``x``, ``data``) and ``labels`` (or ``y``, ``targets``).
        argument: what the user gave it as.

    Raises:
        TaskError: it cannot be read, lacks an array, or holds pickled objects.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(ZIP)) != ZIP:
                raise zipfile.BadZipFile("it is no zip archive")
        with np.load(path, allow_pickle=False) as held:
            return _named(held, IMAGES, path, argument), _named(held, LABELS, path, argument)
    except FAULTS as error:
        if "allow_pickle" in str(error):
            raise TaskError(
                f"`{argument}` must hold plain arrays; {path} holds pickled objects, which can run code when read. "
                "Write it again from arrays of numbers."
            ) from error
        raise TaskError(
            f"`{argument}` must be a readable npz file; {path} is not ({error}). Write it again with numpy.savez."
        ) from error


def _named(held: Any, names: Sequence[str], path: Path, argument: str) -> npt.NDArray[Any]:
    found = next((name for name in names if name in held.files), None)
    if found is None:
        raise TaskError(
            f"`{argument}` must hold an array named {' or '.join(names)}; {path} holds "
            f"{', '.join(held.files) or 'none'}. Rename it."
        )
    array: npt.NDArray[Any] = held[found]
    return array
