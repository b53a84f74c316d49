"""Scores of image classifiers: labels given rightly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from specdef.models.images import image_logits
from specdef.models.samples import LabelledImage
from specdef.tasks.labelled import likeliest
from specdef.tasks.score import Score, share


@dataclass(frozen=True)
class ImageAccuracy:
    """Share of images that get their label; every class is asked equally often, so one label for all gets chance."""

    rows: tuple[LabelledImage, ...]

    def __call__(self, model: Any, processor: Any) -> Score:
        """Score a model; 0 when any logit is not finite, so that a broken model never scores by luck."""
        found = predicted(model, processor, self.rows)
        right = (
            [False] * len(self.rows) if found is None else [f == r.label for f, r in zip(found, self.rows, strict=True)]
        )
        return share(right, range(len(right)))

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the score depends on, as JSON data."""
        return {"rows": [list(astuple(row)) for row in self.rows]}

    @property
    def chance(self) -> float:
        """What a model gets that knows nothing."""
        return 1 / len({row.label for row in self.rows})


def predicted(model: Any, processor: Any, images: Sequence[LabelledImage]) -> list[int] | None:
    """The label a classifier gives each image; None when any logit is not finite."""
    return likeliest(image_logits(model, processor, images))
