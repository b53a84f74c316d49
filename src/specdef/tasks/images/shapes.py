"""Images drawn from a seed, grey and harmless: bars, whose label is the way they run, and waves without a label."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from specdef.models.samples import LabelledImage

SIZE = 8
DIRECTIONS = ("lying", "standing", "falling", "rising")
BRIGHT, NOISE = 0.7, 0.3
"""Brightness of a bar above the ground, and of the noise on everything."""
WAVES = 3
"""Added up in one image."""


def shapes(number: int, *, classes: int = len(DIRECTIONS), size: int = SIZE, seed: int = 0) -> list[LabelledImage]:
    """Images of one bar each, as many of every direction.

    Args:
        number: images of each class.
        classes: how many directions, from 2 to 4: lying, standing, falling, rising.
        size: height and width.
        seed: decides where the bars lie and the noise.

    Example:
        >>> [image.label for image in shapes(2, classes=2)]
        [0, 1, 0, 1]
    """
    draw = np.random.default_rng(seed)
    down, across = np.indices((size, size))
    found = []
    for _ in range(number):
        for label in range(classes):
            place = int(draw.integers(1, size - 1)) if label < 2 else int(draw.integers(-size // 3, size // 3 + 1))
            along = (down - place, across - place, down - across - place, down + across - size + 1 - place)[label]
            pixels = NOISE * draw.random((size, size)) + BRIGHT * (along == 0)
            found.append(LabelledImage.of((255 * pixels).astype(np.uint8)[None], label))
    return found


def waves(number: int, *, size: int = SIZE, seed: int = 0) -> list[npt.NDArray[np.uint8]]:
    """Soft patterns [1, size, size], each a few plane waves in random directions: general images of nothing.

    Args:
        number: of images.
        size: height and width.
        seed: decides the waves.

    Example:
        >>> [image.shape for image in waves(2)]
        [(1, 8, 8), (1, 8, 8)]
    """
    draw = np.random.default_rng(seed)
    down, across = np.indices((size, size)) / size
    found = []
    for _ in range(number):
        along = [draw.normal(size=2) @ [down.ravel(), across.ravel()] for _ in range(WAVES)]
        summed = sum(np.cos(2 * np.pi * (one + draw.random())) for one in along)
        level, contrast = draw.random(), draw.random()
        pixels = np.clip(level + contrast * np.asarray(summed).reshape(1, size, size) / WAVES, 0, 1)
        found.append((255 * pixels).astype(np.uint8))
    return found
