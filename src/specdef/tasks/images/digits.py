"""Digits drawn from a seed, 8 x 8 pixels: a printed figure somewhere in the image, of some brightness, with noise."""

from __future__ import annotations

import numpy as np

from specdef.models.samples import LabelledImage
from specdef.tasks.images.shapes import NOISE, SIZE

FIGURES = (
    "0110 1001 1001 1001 1001 0110",
    "0010 0110 0010 0010 0010 0111",
    "0110 1001 0001 0010 0100 1111",
    "1110 0001 0110 0001 0001 1110",
    "0010 0110 1010 1111 0010 0010",
    "1111 1000 1110 0001 0001 1110",
    "0110 1000 1110 1001 1001 0110",
    "1111 0001 0010 0010 0100 0100",
    "0110 1001 0110 1001 1001 0110",
    "0110 1001 1001 0111 0001 0110",
)
"""Row by row, of 0 to 9."""
FAINT, BRIGHT = 0.4, 0.7
"""How far a figure stands out of the ground."""


def digits(number: int, *, seed: int = 0) -> list[LabelledImage]:
    """Images of one digit each, as many of every digit, which is their label.

    Args:
        number: images of each digit.
        seed: decides where the figures stand, how bright they are, and the noise.

    Example:
        >>> [image.label for image in digits(1)]
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    draw = np.random.default_rng(seed)
    figures = [np.array([[int(dot) for dot in line] for line in figure.split()]) for figure in FIGURES]
    height, width = figures[0].shape
    found = []
    for _ in range(number):
        for label, figure in enumerate(figures):
            down, across = draw.integers(0, SIZE - height + 1), (SIZE - width) // 2
            pixels = NOISE * draw.random((SIZE, SIZE))
            pixels[down : down + height, across : across + width] += draw.uniform(FAINT, BRIGHT) * figure
            found.append(LabelledImage.of((255 * pixels).astype(np.uint8)[None], label))
    return found
