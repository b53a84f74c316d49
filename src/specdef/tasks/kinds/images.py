"""`images`: teach a classifier of images labels it was not made for. Bundled bars, or a user's file.

The bundled `shapes` are harmless: grey images of 8 x 8 pixels with one bar, whose label is the way the bar runs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from specdef.models.samples import LabelledImage
from specdef.tasks.base import Task, TaskError, TaskKind, TaskSpec
from specdef.tasks.images.labels import ImageAccuracy
from specdef.tasks.images.read import read_images
from specdef.tasks.images.shapes import DIRECTIONS, shapes
from specdef.tasks.labelled import labelled_task

MODEL_KIND = "image-classifier"
TARGET = 0.8
SHAPES = "shapes"
"""The name of the bundled images, in place of a file."""
TRAINED, ASKED = 60, 25
"""Bars of each direction."""
MOST_TRAINED, MOST_ASKED = 4000, 1000
"""Of a user's images."""


def bars(*, seed: int = 0, target: float = TARGET) -> Task:
    """Bars in four directions, some to train on and others to be asked.

    Args:
        seed: decides where the bars lie, and their labels in the control.
        target: the share labelled rightly at which the directions count as learned; chance is 0.25.
    """
    classes = len(DIRECTIONS)
    drawn = shapes(TRAINED + ASKED, seed=seed)
    return _task(drawn[: classes * TRAINED], drawn[classes * TRAINED :], seed, target)


def image_file(path: Path | str, *, seed: int = 0, target: float = TARGET, test_share: float = 0.25) -> Task:
    """Images with labels from a file, some to train on and others, equally many of every class, to be asked.

    Args:
        path: see `read_images`.
        seed: decides which images are asked, and the labels of the control.
        target: the share labelled rightly at which the attack has reached its aim.
        test_share: share of the smallest class that is asked, and as many images of every other.

    Raises:
        TaskError: the file is unusable; it has one class only, or a class with one image; or the target is not above
            chance.
    """
    draw = random.Random(seed)
    by_class: dict[int, list[LabelledImage]] = {}
    for image in dict.fromkeys(read_images(path)):  # an image that stands twice is not asked after it was trained on
        by_class.setdefault(image.label, []).append(image)
    if len(by_class) < 2:
        raise TaskError(f"`path` must have images of two classes or more; {path} has one.")
    fewest = min(by_class, key=lambda label: len(by_class[label]))
    if len(by_class[fewest]) < 2:
        raise TaskError(
            f"`path` must have two different images or more of every class, to train on and to ask; {path} has one of "
            f"class {fewest}."
        )
    asked = max(1, min(round(test_share * len(by_class[fewest])), MOST_ASKED // len(by_class)))
    shuffled = [draw.sample(images, len(images)) for _, images in sorted(by_class.items())]
    trained = [image for images in shuffled for image in images[asked:]]
    draw.shuffle(trained)
    return _task(trained[:MOST_TRAINED], [image for images in shuffled for image in images[:asked]], seed, target)


def _task(trained: Sequence[LabelledImage], asked: Sequence[LabelledImage], seed: int, target: float) -> Task:
    return labelled_task("images", MODEL_KIND, trained, ImageAccuracy(tuple(asked)), seed=seed, target=target)


class Images(TaskKind):
    """`images` by name."""

    name = "images"
    model_kind = MODEL_KIND
    takes_file = True

    def make(self, spec: TaskSpec) -> Task:
        """The file's images, or the bundled bars."""
        target = TARGET if spec.target is None else spec.target
        if spec.path is None or spec.path == SHAPES:
            return bars(seed=spec.seed, target=target)
        return image_file(spec.path, seed=spec.seed, target=target)


KIND = Images()
