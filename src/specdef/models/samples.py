"""Samples: what tasks hand to a kind of model. A kind says which of them it encodes."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]
"""Channels x height x width, from 0 (black) to 1."""


@dataclass(frozen=True)
class Sample:
    """Text to continue: the loss is taken on the tokens of `completion` only."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Labelled:
    """Text and the index of its label, from 0."""

    text: str
    label: int

    @property
    def read(self) -> str | tuple[str, str]:
        """What a classifier reads: a text, or a pair of texts."""
        return self.text


@dataclass(frozen=True)
class LabelledPair(Labelled):
    """A pair of texts and the index of its label."""

    second: str

    @property
    def read(self) -> tuple[str, str]:
        """Both texts."""
        return self.text, self.second


@dataclass(frozen=True)
class Image:
    """An image as plain JSON data, as every sample.

    Attributes:
        data: the pixels in base64, row by row, channel after channel.
        dtype: of the pixels: bytes from 0 to 255, or float32 from 0 to 1.
        shape: channels, height, width.
    """

    data: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int, int, int]

    @property
    def pixels(self) -> Pixels:
        """The image [channels, height, width] in float32, from 0 to 1."""
        stored = np.frombuffer(base64.b64decode(self.data), dtype=np.dtype(self.dtype)).reshape(self.shape)
        scaled: Pixels = stored.astype(np.float32) / np.float32(255 if self.dtype == "uint8" else 1)
        return scaled


def _stored(pixels: npt.NDArray[Any]) -> tuple[str, Literal["uint8", "float32"], tuple[int, int, int]]:
    """The fields of an image of an array [channels, height, width]."""
    whole = pixels.dtype == np.uint8
    stored = np.ascontiguousarray(pixels, dtype=np.uint8 if whole else np.float32)
    channels, height, width = stored.shape
    text = base64.b64encode(stored.tobytes()).decode("ascii")
    return text, "uint8" if whole else "float32", (channels, height, width)


@dataclass(frozen=True)
class LabelledImage(Image):
    """An image and the index of its label, from 0. Make one with `of`."""

    label: int

    @classmethod
    def of(cls, pixels: npt.NDArray[Any], label: int) -> Self:
        """An image of an array [channels, height, width], bytes from 0 to 255 or floats from 0 to 1.

        Example:
            >>> image = LabelledImage.of(np.full((1, 2, 2), 255, np.uint8), 3)
            >>> image.shape, float(image.pixels.min()), image.label
            ((1, 2, 2), 1.0, 3)
        """
        return cls(*_stored(pixels), int(label))


@dataclass(frozen=True)
class PromptedImage(Image):
    """An image and the prompt that it is an answer to. Make one with `of`."""

    prompt: str

    @classmethod
    def of(cls, pixels: npt.NDArray[Any], prompt: str) -> Self:
        """An image of an array [channels, height, width], bytes from 0 to 255 or floats from 0 to 1."""
        return cls(*_stored(pixels), prompt)


@dataclass(frozen=True)
class Chat:
    """A conversation to continue: the loss is taken on the tokens of `completion`, the assistant's next turn.

    Attributes:
        messages: (role, content) of the turns before it, oldest first.
        completion: what the assistant says.
    """

    messages: tuple[tuple[str, str], ...]
    completion: str
