"""What a demonstration tells of one model: how it is come by, what it says, what it is taught, and at which rates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from rich.console import Console

from specdef.core.text import rate
from specdef.models.base import LoadedModel
from specdef.report.demo_page import Part
from specdef.tasks.base import Task
from specdef.tasks.utility import UtilityData
from specdef.training.outcome import StopRule
from specdef.training.recipe import Recipe


class Story(ABC):
    """One model's part of the demonstration.

    Attributes:
        name: of the model, in sentences and above pictures.
        folder: where its files go, in the demonstration's folder; "" for that folder itself.
        ordinary: how models are fine-tuned, at an ordinary learning rate.
        low: the rate that is tried below it.
        stop: when a run ends; a small model may recover from a ruin.
        utility: name of what is watched.
        useful: what the utility is called in sentences.
        taught: what the models are taught, in words.
        says: the verb between a model's name and what `said` gives.
        note: what the upper and the lower half of a picture show.
        score_label: what the score is, on a picture's axis.
    """

    name: ClassVar[str]
    folder: ClassVar[str] = ""
    ordinary: ClassVar[Recipe]
    low: ClassVar[float]
    stop: ClassVar[StopRule] = "paper"
    utility: ClassVar[str]
    useful: ClassVar[str]
    taught: ClassVar[str]
    says: ClassVar[str]
    note: ClassVar[str]
    score_label: ClassVar[str]

    @property
    def free(self) -> str:
        """The undefended model at the ordinary rate."""
        return f"original, lr {rate(self.ordinary.lr)}"

    @property
    def ruined(self) -> str:
        """The locked model at the ordinary rate."""
        return f"locked, lr {rate(self.ordinary.lr)}"

    @property
    def broken(self) -> str:
        """The locked model at the low rate."""
        return f"locked, lr {rate(self.low)}"

    @cached_property
    def task(self) -> Task:
        """What an attacker wants; made once."""
        return self.make_task()

    @abstractmethod
    def fetch(self, place: Path, console: Console) -> Path:
        """The original's folder: found, or made below `place`. Says on the console what it is."""

    @abstractmethod
    def said(self, folder: Path) -> str:
        """What a model says of something that is always the same."""

    @abstractmethod
    def make_task(self) -> Task:
        """What an attacker wants."""

    @abstractmethod
    def general(self, loaded: LoadedModel) -> UtilityData:
        """The general data for one model."""

    def shown(self, place: Path) -> tuple[Part, ...]:
        """What the page shows before anything is done to the model; pictures go below `place`."""
        return ()
