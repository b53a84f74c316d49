"""What a defence is: a model in, a defended model out. A kind is one file of `specdef.defences.kinds`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from specdef.core.registry import Registry
from specdef.core.results import Result
from specdef.defences.unfinished import Unfinished
from specdef.models.base import Batch, LoadedModel
from specdef.tasks.base import Metric
from specdef.tasks.utility import Utility, UtilityData
from specdef.training.outcome import Evaluation

Progress = Callable[[str, Evaluation], None]
"""(stage, what was measured)."""


@dataclass(frozen=True)
class NoOptions:
    """A defence that has nothing to choose."""


@dataclass(frozen=True)
class DataRows:
    """What to forget and what to keep, encoded."""

    forget: Batch
    retain: Batch


@dataclass(frozen=True)
class Given:
    """What a defence is given.

    Attributes:
        folder: the model as it lies on disk; read only.
        loaded: the model in memory, in float32 and evaluation mode. A defence changes it in place.
        utility: how utility is measured.
        data: what it is measured on, and general rows that may be mixed into training.
        seed: decides every draw; torch's own generator is seeded with it as well.
        progress: to be called after every evaluation.
        data_rows: what to forget and what to keep, encoded; None for a defence that brings its own data.
        measures: what is measured before and after; the first is shown with every evaluation.
        unfinished: where a long run keeps its state; None keeps none.
        start: what the given model came to: score of the first measure, and utility; None where nobody measured it.
    """

    folder: Path
    loaded: LoadedModel
    utility: Utility
    data: UtilityData
    seed: int
    progress: Progress = field(default=lambda stage, found: None)
    data_rows: DataRows | None = None
    measures: Sequence[Measure] = ()
    unfinished: Unfinished | None = None
    start: Evaluation | None = None


@dataclass(frozen=True)
class Measure:
    """A score that is taken of the model before and after: its name, as sentences use it, and how."""

    name: str
    metric: Metric


@dataclass(frozen=True)
class Applied:
    """What applying a defence did.

    Attributes:
        steps: optimizer steps of each stage, by the stage's name.
        evaluations: every measurement of each stage.
        data: digests of what was trained on, by name.
        ended: why training ended, in words; "" where there is nothing to say.
    """

    steps: Mapping[str, int] = field(default_factory=dict)
    evaluations: Mapping[str, Sequence[Evaluation]] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    ended: str = ""


@dataclass(frozen=True)
class Change:
    """A figure of the given model and of the written one."""

    before: float
    after: float


@dataclass(frozen=True, repr=False)
class DefenceReport(Result):
    """What defending a model did.

    Attributes:
        method: name of the defence.
        options: what it was given, defaults included.
        seed: decided every draw.
        scores: what the defence itself measures, by name; the first is what it aims at.
        utility_name: what utility was measured as.
        utility: of the given model and of the written one.
        applied: steps, evaluations and digests of data.
        notes: what a reader should know of the data, a sentence each.
    """

    method: str
    options: Mapping[str, Any]
    seed: int
    scores: Mapping[str, Change]
    utility_name: str
    utility: Change
    applied: Applied
    notes: tuple[str, ...] = ()


class Defence(ABC):
    """One way to defend a model.

    Anything fits that changes a model in place: training towards an objective, editing weights, adding noise. A base
    class for a family of methods belongs beside this file (`specdef.defences.staged` is one), each method in
    `specdef.defences.kinds`.

    Attributes:
        name: as the registry spells it.
        summary: one line for lists of methods.
        Options: a frozen dataclass with a default for every field; it checks itself.
        model_kinds: names of the kinds of model it applies to; empty is all.
        needs_data: whether the user says what it is to remove.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type] = NoOptions
    model_kinds: ClassVar[tuple[str, ...]] = ()
    needs_data: ClassVar[bool] = False

    def measures(self, options: Any, seed: int) -> Sequence[Measure]:
        """The scores taken before and after; the first is what the defence aims at."""
        return ()

    @abstractmethod
    def apply(self, given: Given, options: Any) -> Applied:
        """Change ``given.loaded.model`` in place.

        Args:
            given: the model and what comes with it.
            options: of type `Options`.

        Raises:
            SpecdefError: the model cannot be defended so.
        """

    def check(self, report: DefenceReport, options: Any) -> None:  # noqa: B027
        """Refuse a defended model that misses the defence's aim; nothing is written then.

        Raises:
            SpecdefError: the aim, what was found, and what to change.
        """


DEFENCES: Registry[Defence] = Registry("method", "specdef.defences.kinds", "specdef.defences")
