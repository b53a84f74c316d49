"""Accuracy on general images: does a classifier still give the labels it was made to give?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from specdef.models.samples import LabelledImage
from specdef.tasks.images.labels import predicted
from specdef.tasks.images.read import read_images
from specdef.tasks.images.shapes import waves
from specdef.tasks.utilities.accuracy import UNKNOWN, Accuracy, drawn

DRAWN = 240
"""Bundled images."""


class ImageAccuracy(Accuracy):
    """Share of general images that get their label, each label weighing the same; `Accuracy` says what a budget is.

    A file gives images with labels, the model's own (see `read_images`). The images that ship with the package, soft
    waves of grey, get the labels that the undefended model gives them: the number is then agreement with it.
    """

    name = "image-accuracy"
    unit = "share of general images labelled as the undefended model does"
    model_kinds = ("image-classifier",)
    rows_name = "images"
    general_name = "general images"

    def read(self, path: Path | None) -> str:
        """One JSON object a line, of a file in an order drawn by a seed: an image in base64, its form and its label."""
        if path is None:
            return lines([LabelledImage.of(pixels, UNKNOWN) for pixels in waves(DRAWN)])
        return lines(drawn(read_images(path, argument="text", every_class=False)))

    def parse(self, line: str) -> LabelledImage:
        """An image of what `read` gave."""
        fields = json.loads(line)
        return LabelledImage(**{**fields, "shape": tuple(fields["shape"])})

    def predicted(self, model: Any, processor: Any, rows: Sequence[Any]) -> list[int] | None:
        """The label a classifier gives each image; None when any logit is not finite."""
        return predicted(model, processor, rows)


def lines(images: Sequence[LabelledImage]) -> str:
    """Images as `ImageAccuracy.read` gives them."""
    return "\n".join(json.dumps(asdict(image)) for image in images)


KIND = ImageAccuracy()
