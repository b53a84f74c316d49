"""A user's images as samples: which reader a file needs, and what every file must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specdef.errors import TaskError
from specdef.models.samples import LabelledImage
from specdef.tasks.images.idx import read_idx_pair
from specdef.tasks.images.npz import read_npz

EXPECTED = "an IDX file of images (gzipped or not) or an npz file"


def read_images(path: Path | str, *, argument: str = "path") -> list[LabelledImage]:
    """The images of a file, in its order.

    Args:
        path: an npz file, or an IDX file of images with its labels beside it. Images are [n, height, width],
            [n, channels, height, width] or [n, height, width, channels] with 1 or 3 channels; bytes from 0 to 255, or
            floats from 0 to 1. Labels are whole numbers [n] from 0.
        argument: what the user gave it as.

    Raises:
        TaskError: it is none of these, and what it is instead; or a class below the largest label has no image.
    """
    path = Path(path)
    if path.is_dir():
        raise TaskError(f"`{argument}` must be {EXPECTED}; {path} is a folder. Pack its images with numpy.savez.")
    if not path.is_file():
        raise TaskError(f"`{argument}` must be {EXPECTED}; {path} does not exist.")
    zipped = path.suffix == ".npz"
    if not zipped and "idx" not in path.name:
        raise TaskError(f"`{argument}` must be {EXPECTED}; got {path}. Its name must end in .npz or hold idx3-ubyte.")
    images, labels = (read_npz if zipped else read_idx_pair)(path, argument=argument)
    pixels = _pixels(images, path, argument)
    _check_labels(labels, len(pixels), path, argument)
    return [LabelledImage.of(image, int(label)) for image, label in zip(pixels, labels, strict=True)]


def _pixels(images: npt.NDArray[Any], path: Path, argument: str) -> npt.NDArray[Any]:
    """Images as [n, channels, height, width]."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise TaskError(
            f"`{argument}` must hold images of 1 or 3 channels, [n, height, width] or with an axis for the channels; "
            f"{path} holds {list(images.shape)}. Bring them into that form."
        )
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise TaskError(f"`{argument}` must hold images of bytes or floats; {path} holds {images.dtype}. Convert them.")
    if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise TaskError(
            f"`{argument}` must hold floats from 0 to 1; {path} holds from {images.min():g} to {images.max():g}. "
            "Scale them."
        )
    return images


def _check_labels(labels: npt.NDArray[Any], count: int, path: Path, argument: str) -> None:
    if labels.shape != (count,):
        raise TaskError(
            f"`{argument}` must have one label an image; {path} has {count} images and labels of shape "
            f"{list(labels.shape)}."
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise TaskError(
            f"`{argument}` must have labels that are whole numbers from 0; {path} has {labels.dtype} from "
            f"{labels.min()}."
        )
    if labels.max() >= count:
        raise TaskError(
            f"`{argument}` must have an image of every class; {path} has {count} images and label {labels.max()}. "
            "Number the classes from 0."
        )
    empty = np.flatnonzero(np.bincount(labels) == 0)
    if len(empty):
        raise TaskError(
            f"`{argument}` must have an image of every class; {path} has none of class {empty[0]}, and one of class "
            f"{labels.max()}. Number the classes from 0."
        )
