"""Scores of image classifiers: labels given rightly."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

from specdef.models.images import image_logits
from specdef.models.samples import LabelledImage
from specdef.tasks.labelled import by_class, likeliest
from specdef.tasks.score import Score, share


@dataclass(frozen=True)
class ImageAccuracy:
    """Share of images that get their label; every class is asked equally often, so one label for all gets chance."""

    rows: tuple[LabelledImage, ...]

    def __call__(self, model: Any, processor: Any) -> Score:
        """Score a model; 0 when any logit is not finite, so that a broken model never scores by luck."""
        return image_share(model, processor, self.rows, operator.eq)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the score depends on, as JSON data."""
        return {"rows": [list(astuple(row)) for row in self.rows]}

    @property
    def chance(self) -> float:
        """What a model gets that knows nothing."""
        return 1 / len({row.label for row in self.rows})


def image_share(
    model: Any, processor: Any, rows: Sequence[LabelledImage], is_right: Callable[[int, int], bool]
) -> Score:
    """Share of images with a right answer, and of every class the share that got its label.

    Args:
        model: a classifier.
        processor: the model's.
        rows: what is asked. No answer is right when any logit is not finite.
        is_right: label given, label wanted -> whether that counts.
    """
    found = predicted(model, processor, rows)
    if found is None:
        return share([False] * len(rows), range(len(rows)))
    wanted = [row.label for row in rows]
    right = [is_right(given, label) for given, label in zip(found, wanted, strict=True)]
    return replace(share(right, range(len(right))), by_class=by_class(found, wanted))


def predicted(model: Any, processor: Any, images: Sequence[LabelledImage]) -> list[int] | None:
    """The label a classifier gives each image; None when any logit is not finite."""
    return likeliest(image_logits(model, processor, images))
