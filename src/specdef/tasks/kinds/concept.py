"""`concept`: teach a pipeline to draw a class again that it was made to forget. A user's file says which."""

from __future__ import annotations

import random

from specdef.tasks.base import Task, TaskKind, TaskSpec
from specdef.tasks.images.concept_file import read_concept
from specdef.tasks.images.drawn_share import DrawnShare

TARGET = 0.6


class Concept(TaskKind):
    """The share of drawn images that an independent classifier takes for the concept.

    The control trains on images of the other classes: whether any fine-tuning brings the concept back.
    """

    name = "concept"
    model_kind = "diffusion"
    takes_file = True
    needs_file = True

    def make(self, spec: TaskSpec) -> Task:
        """The concept of a file; see `specdef.tasks.images.concept_file`."""
        assert spec.path is not None
        found = read_concept(spec.path)
        metric = DrawnShare(
            found.prompts[found.concept],
            found.concept,
            found.classifier,
            found.drawn,
            found.steps,
            found.guidance,
            spec.seed,
        )
        metric.check(len(found.prompts))
        draw = random.Random(spec.seed)
        own = found.prompted(lambda label: label == found.concept)
        others = found.prompted(lambda label: label != found.concept)
        count = min(found.samples, len(own), len(others))
        target = TARGET if spec.target is None else spec.target
        controls = {"other concepts": tuple(draw.sample(others, count))}
        samples = tuple(draw.sample(own, count))
        chance = 1 / len(found.prompts)
        return Task(self.name, self.model_kind, samples, metric, target, chance, metric.identity, controls)


KIND = Concept()
