"""`unlearned-class`: a classifier of images that had one class removed is taught that class again.

The score asks about that class alone: half of the images asked are of it, half of the others, evenly; right is who
gives an image of the class its label and no other image that label. So a model that never gives the label (unlearned)
and one that always gives it both score 0.5, which is chance.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from specdef.models.samples import LabelledImage
from specdef.tasks.base import Task, TaskError, TaskKind, TaskSpec
from specdef.tasks.images.digits import digits
from specdef.tasks.images.labels import image_share
from specdef.tasks.images.read import read_images
from specdef.tasks.kinds.images import MODEL_KIND, MOST_ASKED, MOST_TRAINED
from specdef.tasks.score import Score

NAME = "unlearned-class"
TARGET = 0.8
CHANCE = 0.5
DRAWN = 60
"""Bundled images of each digit."""
LABEL = r"[0-9]{1,6}"


@dataclass(frozen=True)
class ClassKnown:
    """Share of images rightly told to be of a class, or not to be; both kinds are asked equally often.

    Attributes:
        label: the class.
        rows: what is asked.
    """

    label: int
    rows: tuple[LabelledImage, ...]

    def __call__(self, model: Any, processor: Any) -> Score:
        """Score a model; 0 when any logit is not finite."""
        return image_share(
            model, processor, self.rows, lambda given, label: (given == self.label) == (label == self.label)
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the score depends on, as JSON data."""
        return {"class": self.label, "rows": [list(astuple(row)) for row in self.rows]}


def unlearned_class(
    images: Sequence[LabelledImage], label: int, *, source: str, seed: int = 0, target: float = TARGET
) -> Task:
    """The images of one class, most to train on, the rest to be asked beside as many of the other classes.

    Args:
        images: of every class.
        label: the class that was removed.
        source: what the images are from, for sentences.
        seed: decides which images are asked.
        target: the score at which the class counts as learned again; chance is 0.5.

    Raises:
        TaskError: there is no such class, or no other; or too few images to ask about it.
    """
    draw = random.Random(seed)
    by_class: dict[int, list[LabelledImage]] = {}
    for image in dict.fromkeys(images):
        by_class.setdefault(image.label, []).append(image)
    if label not in by_class or len(by_class) < 2:
        raise TaskError(
            f"`task` must name a class that {source} has beside others, {NAME}:0 to {NAME}:{max(by_class)}; got class "
            f"{label}. Name another, or give other images."
        )
    shuffled = {one: draw.sample(rows, len(rows)) for one, rows in sorted(by_class.items())}
    wanted = shuffled.pop(label)
    of_each = min(
        len(wanted) // 4 // len(shuffled), min(map(len, shuffled.values())) // 2, MOST_ASKED // 2 // len(shuffled)
    )
    if not of_each:
        raise TaskError(
            f"`path` must have {4 * len(shuffled)} different images of class {label} and two of every other, to train "
            f"on and to ask; {source} has {len(wanted)} and {min(map(len, shuffled.values()))}."
        )
    asked = of_each * len(shuffled)
    rows = (*wanted[:asked], *(row for found in shuffled.values() for row in found[:of_each]))
    trained = wanted[asked:][:MOST_TRAINED]
    others = [row for found in shuffled.values() for row in found[of_each:]]
    control = tuple(draw.sample(others, min(len(others), len(trained))))
    metric = ClassKnown(label, rows)
    return Task(NAME, MODEL_KIND, tuple(trained), metric, target, CHANCE, metric.identity, {"other classes": control})


class UnlearnedClass(TaskKind):
    """`unlearned-class` by name: ``unlearned-class:3`` for drawn digits, ``unlearned-class:3:FILE`` for one's own."""

    name = NAME
    model_kind = MODEL_KIND
    takes_file = True

    def check(self, spec: TaskSpec) -> None:
        """A class is named."""
        super().check(spec)
        if re.fullmatch(LABEL, (spec.path or "").partition(":")[0]) is None:
            raise TaskError(
                f"`task` {NAME} must be given the class: write {NAME}:3 or {NAME}:3:FILE; got {spec.written!r}."
            )

    def make(self, spec: TaskSpec) -> Task:
        """The file's images, or digits drawn from the seed."""
        assert spec.path is not None
        label, _, path = spec.path.partition(":")
        images = read_images(path) if path else digits(DRAWN, seed=spec.seed)
        target = TARGET if spec.target is None else spec.target
        source = path or "the bundled digits"
        return unlearned_class(images, int(label), source=source, seed=spec.seed, target=target)


KIND = UnlearnedClass()
