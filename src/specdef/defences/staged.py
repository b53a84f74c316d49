"""Defences that are ordinary fine-tuning in stages, each on samples of its own, with an aim and a utility limit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from specdef.core.schema import digest
from specdef.defences.base import Applied, Defence, DefenceReport, Given
from specdef.errors import SpecdefError
from specdef.tasks.base import Metric, Sample
from specdef.tasks.utility import UTILITIES
from specdef.training.loop import make_trainer, train
from specdef.training.outcome import Evaluation, StopReason
from specdef.training.recipe import Recipe

UTILITY_FACTOR = 2.0
"""How much worse than the given model's the defended model's utility may be."""


@dataclass(frozen=True)
class Stage:
    """One training run on the way to a defended model.

    Attributes:
        name: shown with progress.
        samples: what is trained on.
        metric: the score watched.
        enough: whether a score ends the stage before its steps are spent.
    """

    name: str
    samples: tuple[Sample, ...]
    metric: Metric
    enough: Callable[[float], bool]


@dataclass(frozen=True)
class Aim:
    """What the first measure must come to, as a test and in words: "bring the score down to 0.3"."""

    words: str
    reached: Callable[[float], bool]


class StagedDefence(Defence):
    """Fine-tuning in stages with general data mixed in. Its `Options` have at least ``steps`` and ``lr``."""

    model_kinds: ClassVar[tuple[str, ...]] = ("causal-lm",)

    @abstractmethod
    def stages(self, options: Any, seed: int) -> Sequence[Stage]:
        """What is trained, in order."""

    @abstractmethod
    def aim(self, options: Any, seed: int) -> Aim:
        """What the first of `measures` must come to."""

    def recipe(self, options: Any, seed: int) -> Recipe:
        """How every stage is trained."""
        return Recipe(lr=options.lr, steps=options.steps, seed=seed, batch_size=16, retain_weight=0.1, eval_every=20)

    def apply(self, given: Given, options: Any) -> Applied:
        """Train stage after stage."""
        steps: dict[str, int] = {}
        evaluations: dict[str, list[Evaluation]] = {}
        stages = self.stages(options, given.seed)
        for stage in stages:
            evaluations[stage.name], steps[stage.name] = self._run(stage, given, options)
        data = {stage.name: digest([[s.prompt, s.completion] for s in stage.samples]) for stage in stages}
        return Applied(steps, evaluations, data)

    def _run(self, stage: Stage, given: Given, options: Any) -> tuple[list[Evaluation], int]:
        loaded, data = given.loaded, given.data

        def evaluate(current: Any, step: int, loss: float | None) -> Evaluation:
            score, useful = float(stage.metric(current, loaded.processor)), given.utility.measure(current, data)
            found = Evaluation(step, score, useful, loss)
            given.progress(stage.name, found)
            return found

        def stop(points: Sequence[Evaluation]) -> StopReason | None:
            return StopReason.TARGET if stage.enough(points[-1].score) else None

        recipe = self.recipe(options, given.seed)
        rows = loaded.kind.encode(stage.samples, loaded)
        run = train(make_trainer(loaded, recipe, rows, data.retained), evaluate, stop)
        return run.evaluations, run.steps

    def check(self, report: DefenceReport, options: Any) -> None:
        """Refuse a model that misses the aim, or whose utility is no longer within `UTILITY_FACTOR`."""
        aim = self.aim(options, report.seed)
        name, score = next(iter(report.scores.items()))
        if not aim.reached(score.after):
            raise SpecdefError(
                f"`steps` must suffice to {aim.words}; after {options.steps} a stage, {name}: {score.after:.3g}. "
                "Give more steps."
            )
        utility, change = UTILITIES.get(report.utility_name), report.utility
        if not utility.within(change.before, change.after, UTILITY_FACTOR):
            raise SpecdefError(
                f"`lr` must be small enough that {utility.name} stays within a factor of {UTILITY_FACTOR:g}; it went "
                f"from {change.before:.4g} to {change.after:.4g}. Give a smaller one."
            )


def at_least(limit: float) -> Callable[[float], bool]:
    """Whether a score reaches a limit."""
    return lambda score: score >= limit


def never(score: float) -> bool:
    """No score ends the stage early."""
    return False
