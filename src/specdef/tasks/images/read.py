"""A user's images as samples: which reader a file needs, and what every file must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specdef.errors import TaskError
from specdef.models.samples import LabelledImage
from specdef.tasks.images.cifar import cifar_files, is_pickle, read_cifar
from specdef.tasks.images.idx import read_idx_pair
from specdef.tasks.images.npz import read_npz
from specdef.tasks.images.pictures import class_folders, read_pictures

EXPECTED = "an IDX file of images (gzipped or not), an npz file, a batch of CIFAR or a folder of class folders"
Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Images and labels."""


def read_images(path: Path | str, *, argument: str = "path", every_class: bool = True) -> list[LabelledImage]:
    """The images of a file or folder, in its order.

    Args:
        path: an npz file; an IDX file of images with its labels beside it; a batch of CIFAR-10 or CIFAR-100 for Python,
            or the folder of its training batches; or a folder with a folder of pictures for every class, whose names in
            order are the labels. Images are [n, height, width], [n, channels, height, width] or
            [n, height, width, channels] with 1 or 3 channels; bytes from 0 to 255, or floats from 0 to 1. Labels are
            whole numbers [n] from 0.
        argument: what the user gave it as.
        every_class: whether every class up to the largest label must have an image.

    Raises:
        TaskError: it is none of these, and what it is instead; or a class below the largest label has no image.
    """
    path = Path(path)
    try:
        images, labels = _read(path, argument)
    except OSError as error:
        raise TaskError(
            f"`{argument}` must be {EXPECTED}; {path} cannot be read ({error.strerror}). Check its permissions."
        ) from error
    pixels = _pixels(images, path, argument)
    _check_labels(labels, len(pixels), path, argument)
    if every_class:
        _refuse_empty_class(labels, path, argument)
    return [LabelledImage.of(image, int(label)) for image, label in zip(pixels, labels, strict=True)]


def _read(path: Path, argument: str) -> Arrays:
    if path.is_dir():
        if batches := cifar_files(path):
            return read_cifar(batches, argument=argument)
        if class_folders(path):
            return read_pictures(path, argument=argument)
        raise TaskError(
            f"`{argument}` must be {EXPECTED}; {path} is a folder without folders or batches of CIFAR. Name a file of "
            "it, or make a folder for every class."
        )
    if not path.is_file():
        raise TaskError(f"`{argument}` must be {EXPECTED}; {path} does not exist.")
    if path.suffix == ".npz":
        return read_npz(path, argument=argument)
    if "idx" in path.name:
        return read_idx_pair(path, argument=argument)
    if is_pickle(path):
        return read_cifar([path], argument=argument)
    raise TaskError(f"`{argument}` must be {EXPECTED}; got {path}. Its name must end in .npz or hold idx3-ubyte.")


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
    whole = np.issubdtype(labels.dtype, np.integer)
    if not whole or labels.min() < 0:
        got = f"{labels.dtype} from {labels.min()}" if whole else str(labels.dtype)
        raise TaskError(f"`{argument}` must have labels that are whole numbers from 0; {path} has {got}.")


def _refuse_empty_class(labels: npt.NDArray[Any], path: Path, argument: str) -> None:
    count = len(labels)
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
