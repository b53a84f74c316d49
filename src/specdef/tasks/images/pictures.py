"""Pictures in folders, a folder a class: PNG, JPEG and whatever else Pillow opens. The one file that imports Pillow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specdef.core.text import shown
from specdef.errors import TaskError
from specdef.models.loading import reason

PLAIN = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}
"""Pillow's modes that lose nothing -> what they are read as: grey or red, green, blue."""


def class_folders(folder: Path) -> list[Path]:
    """The folders of a folder, in the order of their names: the first is label 0. Hidden ones are no classes."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def read_pictures(folder: Path, *, argument: str = "path") -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Images [n, channels, height, width] in bytes and labels [n], class by class, by name within each.

    Files beside the class folders, and hidden ones, are not read.

    Args:
        folder: holds a folder of pictures for every class.
        argument: what the user gave it as.

    Raises:
        TaskError: Pillow is not installed; a class is empty; a file is no picture or is damaged; or pictures differ in
            size or in colour.
    """
    found: dict[Path, npt.NDArray[Any]] = {}
    labels: list[int] = []
    for label, place in enumerate(class_folders(folder)):
        paths = sorted(path for path in place.iterdir() if not path.name.startswith("."))
        if not paths:
            raise TaskError(
                f"`{argument}` must have a picture of every class; {place} is empty. Fill it, or remove it."
            )
        for path in paths:
            found[path] = read_picture(path, argument)
            labels.append(label)
    refuse_mixed(found, argument)
    return np.stack(list(found.values())), np.array(labels, dtype=np.int64)


def refuse_mixed(found: Mapping[Path, npt.NDArray[Any]], argument: str) -> None:
    """Refuse pictures, by their files, that no model reads together.

    Raises:
        TaskError: two of them differ in size or in colour.
    """
    (first, form), *others = found.items()
    for path, pixels in others:
        if pixels.shape != form.shape:
            raise TaskError(
                f"`{argument}` must have pictures of one size, all grey or all in colour; {first} is {_written(form)}, "
                f"{path} is {_written(pixels)}. Convert them."
            )


def read_picture(path: Path, argument: str) -> npt.NDArray[Any]:
    """One picture as [channels, height, width] in bytes.

    Raises:
        TaskError: Pillow is not installed, or the file is no picture, is damaged, or is of another mode.
    """
    image_module = pillow()
    if path.is_dir():
        raise TaskError(
            f"`{argument}` must be a folder of class folders that hold pictures; {path} is a folder. Name the folder "
            "right above the classes."
        )
    try:
        with image_module.open(path) as image:
            image.verify()  # checksums, where the format has them; the picture must be opened anew afterwards
        with image_module.open(path) as image:
            mode = image.mode
            plain = PLAIN.get(mode) if "transparency" not in image.info else None
            pixels = None if plain is None else np.asarray(image.convert(plain))
    except Exception as error:  # whatever a stranger's file makes Pillow raise
        raise TaskError(
            f"`{argument}` must hold readable pictures; {path} is not one ({reason(error)}). Replace or remove it."
        ) from error
    if pixels is None:
        raise TaskError(
            f"`{argument}` must hold pictures in grey or in red, green, blue, without transparency; {path} is "
            f"{mode}. Convert it to RGB."
        )
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def read_folder(folder: Path, *, argument: str = "path") -> npt.NDArray[Any]:
    """The pictures that lie in one folder, by name: [n, channels, height, width] in bytes.

    Raises:
        TaskError: as `read_each`, or pictures differ in size or in colour.
    """
    found = read_each(folder, argument=argument)
    refuse_mixed(found, argument)
    return np.stack(list(found.values()))


def read_each(folder: Path, *, argument: str = "path") -> dict[Path, npt.NDArray[Any]]:
    """The same, each as it is: file -> [channels, height, width] in bytes. Hidden files are not read.

    Raises:
        TaskError: it is no folder or has no picture; and as `read_picture`.
    """
    if not folder.is_dir():
        raise TaskError(f"`{argument}` must be a folder of pictures; {shown(folder)} is none. Check the path.")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise TaskError(f"`{argument}` must be a folder of pictures; {shown(folder)} has none. Check the path.")
    return {path: read_picture(path, argument) for path in paths}


def write_folder(folder: Path, images: npt.NDArray[Any]) -> None:
    """Write images [n, 1 or 3, height, width], numbers from 0 to 1, into a folder that exists: 000.png, 001.png, ...

    What is no number becomes black.

    Raises:
        TaskError: Pillow is not installed.
    """
    image_module = pillow()
    whole = np.rint(np.nan_to_num(images, nan=0.0, posinf=0.0, neginf=0.0).clip(0, 1) * 255).astype(np.uint8)
    digits = max(3, len(str(len(whole) - 1)))
    for at, pixels in enumerate(whole):
        picture = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
        image_module.fromarray(picture).save(folder / f"{at:0{digits}d}.png")


def pillow() -> Any:
    """Pillow's module of images.

    Raises:
        TaskError: it is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise TaskError("Pictures need Pillow, which is not installed. Run `pip install specdef[images]`.") from error
    return Image


def _written(pixels: npt.NDArray[Any]) -> str:
    channels, height, width = pixels.shape
    return f"{height} x {width} pixels in {'grey' if channels == 1 else 'colour'}"
