"""Accuracy on general images: does a classifier still give the labels it was made to give?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from specdef.errors import TaskError
from specdef.models.base import LoadedModel
from specdef.models.samples import LabelledImage
from specdef.tasks.images.labels import predicted
from specdef.tasks.images.read import read_images
from specdef.tasks.images.shapes import waves
from specdef.tasks.text.labels import balanced
from specdef.tasks.utilities.accuracy import MAX_ROWS, Accuracy
from specdef.tasks.utility import UtilityData

DRAWN = 240
"""Bundled images."""
UNKNOWN = -1
"""Stands for the label that the undefended model gives."""


class ImageAccuracy(Accuracy):
    """Share of general images that get their label, each label weighing the same; `Accuracy` says what a budget is.

    A file gives images with labels, the model's own (see `read_images`). The images that ship with the package, soft
    waves of grey, get the labels that the undefended model gives them: the number is then agreement with it.
    """

    name = "image-accuracy"
    unit = "share of general images labelled as the undefended model does"
    model_kinds = ("image-classifier",)

    def read(self, path: Path | None) -> str:
        """One JSON object a line: an image in base64, its form and its label."""
        if path is None:
            images = [LabelledImage.of(pixels, UNKNOWN) for pixels in waves(DRAWN)]
        else:
            images = read_images(path, argument="text")
        return "\n".join(json.dumps(asdict(image)) for image in images)

    def check(self, content: str, processor: Any) -> None:
        """There must be an image to measure and one to train on."""
        _halves(content)

    def prepare(
        self, content: str, loaded: LoadedModel, *, original: Callable[[], LoadedModel] | None = None
    ) -> UtilityData:
        """Every other image is measured, the rest mixed into training.

        Raises:
            TaskError: the measured images all have one label: a model that has lost everything else would still pass.
        """
        measured, mixed = _halves(content)
        if measured[0].label == UNKNOWN:
            source = loaded if original is None else original()
            measured, mixed = (_with_labels(half, source) for half in (measured, mixed))
        if len({image.label for image in measured}) < 2:
            raise TaskError(
                "`text` must be images of two labels or more, so that losing one is seen; all of them have label "
                f"{measured[0].label}. Give a file of images that the model tells apart."
            )
        return UtilityData(self, _Measured(tuple(measured), loaded.processor), loaded.kind.encode(mixed, loaded))

    def measure(self, model: Any, data: UtilityData) -> float:
        """The share; not a number when a logit is not finite."""
        rows = data.measured.rows
        found = predicted(model, data.measured.processor, rows)
        return math.nan if found is None else balanced(found, [row.label for row in rows])


@dataclass(frozen=True)
class _Measured:
    rows: tuple[LabelledImage, ...]
    processor: Any


def _halves(content: str) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Every other image; an image that stands in both halves is left in the first."""
    fields = [json.loads(line) for line in content.splitlines()]
    images = list(dict.fromkeys(LabelledImage(**{**each, "shape": tuple(each["shape"])}) for each in fields))
    measured = images[0::2][:MAX_ROWS]
    seen = {image.data for image in measured}
    mixed = [image for image in images[1::2] if image.data not in seen][:MAX_ROWS]
    if not mixed:
        raise TaskError(f"`text` must have at least two different images; it has {len(images)}.")
    return measured, mixed


def _with_labels(images: Sequence[LabelledImage], source: LoadedModel) -> list[LabelledImage]:
    found = predicted(source.model, source.processor, images)
    if found is None:
        raise TaskError("`model` must give finite numbers for general images before it is attacked; it does not.")
    return [replace(image, label=label) for image, label in zip(images, found, strict=True)]


KIND = ImageAccuracy()
