"""Utility: what a model is still good for. An attack that ruins it has won nothing."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from specdef.core.registry import Registry
from specdef.core.text import shown
from specdef.errors import TaskError
from specdef.models.base import Batch, LoadedModel, ModelKind

TOLERANCE = 0.02
"""Largest relative change of a cost at step 0: a lock keeps the function, so a larger one is a broken attack."""

RUIN = 1000.0
"""Growth of a cost after which a model counts as beyond repair. When it was set, 22 of 121 committed runs on language
models had passed a growth of 30 and 17 one of 1000; all went on to their last step, none came back within a budget of
2."""


@dataclass(frozen=True)
class UtilityData:
    """General data for one model.

    Attributes:
        utility: what is measured on it.
        measured: what `Utility.measure` reads.
        retained: encoded rows that an attacker who wants a usable model mixes into training; they share nothing with
            what is measured. None mixes nothing.
    """

    utility: Utility
    measured: Any
    retained: Batch | None = None

    def measure(self, model: Any) -> float:
        """The model's utility on it."""
        return self.utility.measure(model, self)

    def measure_by_class(self, model: Any) -> tuple[float, Mapping[str, float] | None]:
        """The model's utility on it, and of every class; see `Utility.measure_by_class`."""
        return self.utility.measure_by_class(model, self)


class Utility(ABC):
    """A way to say what a model is still good for, as one number.

    Attributes:
        name: as the registry spells it; shown in reports.
        unit: what the number is, in words.
        model_kinds: names of the kinds of model it can be measured of.
        higher_is_better: which way it moves when a model is ruined.
        needs_original: whether the general data takes the undefended model to prepare.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    model_kinds: ClassVar[tuple[str, ...]]
    higher_is_better: ClassVar[bool]
    needs_original: ClassVar[bool] = False

    @abstractmethod
    def read(self, path: Path | None) -> str:
        """The general data as text: a user's file, or what ships with the package. Its hash enters every cell.

        Raises:
            SpecdefError: the file cannot be read, or holds nothing.
        """

    @abstractmethod
    def check(self, content: str, processor: Any) -> None:
        """Refuse data that is of no use for a model with this processor, before anything is run.

        Raises:
            SpecdefError: too little of it, or malformed.
        """

    @abstractmethod
    def prepare(
        self, content: str, loaded: LoadedModel, *, original: Callable[[], LoadedModel] | None = None
    ) -> UtilityData:
        """The general data for one model.

        Args:
            content: what `read` gave.
            loaded: the model under attack.
            original: loads the undefended model, for a utility that needs it; None takes `loaded` for it.

        Raises:
            SpecdefError: the data is of no use for this model.
        """

    def training_rows(self, content: str, loaded: LoadedModel, data: UtilityData) -> Batch | None:
        """Encoded rows for whoever keeps a model's function by training: those of `data`, and where a user gave more
        than an attacker mixes in, all of them but those that are measured."""
        return data.retained

    @abstractmethod
    def measure(self, model: Any, data: UtilityData) -> float:
        """The utility of a model in evaluation mode; not finite when the model's numbers are not."""

    def measure_by_class(self, model: Any, data: UtilityData) -> tuple[float, Mapping[str, float] | None]:
        """The same utility and, where it is one of labels, label -> the share of its rows that got it; else None."""
        return self.measure(model, data), None

    @abstractmethod
    def limit(self, start: float, budget: float) -> float:
        """The worst utility at which a model that began at `start` is still useful; `budget` above 1 is how much may
        go."""

    def within(self, start: float, now: float, budget: float) -> bool:
        """Whether a model whose utility was `start` is still useful at `now`."""
        limit = self.limit(start, budget)
        return now >= limit if self.higher_is_better else now <= limit

    def ruined(self, start: float, now: float) -> bool:
        """Whether a model whose utility was `start` is beyond repair at `now`: no run is known to have come back."""
        return not math.isfinite(now)

    @abstractmethod
    def changed(self, found: float, reference: float | None) -> bool:
        """Whether a model's utility before training shows another function than the undefended model's.

        A value that is not finite always does; a `reference` of None leaves the rest unchecked.
        """

    def written(self, value: float) -> str:
        """A value with its name, for a sentence."""
        return f"{self.name} {value:.4g}"


class Cost(Utility):
    """A utility that a ruin multiplies, such as a loss or a perplexity: the budget is a factor of the start."""

    higher_is_better = False

    def limit(self, start: float, budget: float) -> float:
        """`budget` times the start."""
        return budget * start

    def ruined(self, start: float, now: float) -> bool:
        """Also above `RUIN` times the start."""
        return super().ruined(start, now) or now > RUIN * start

    def changed(self, found: float, reference: float | None) -> bool:
        """More than 2 % off."""
        if not math.isfinite(found):
            return True
        return reference is not None and abs(found - reference) > TOLERANCE * reference


def refuse_missing_text(path: Path | str) -> None:
    """Raise TaskError where general data is given as a file that does not exist; no model is needed to say so."""
    if not Path(path).exists():
        raise TaskError(f"`text` must be a UTF-8 text file; {shown(path)} does not exist.")


UTILITIES: Registry[Utility] = Registry("utility", "specdef.tasks.utilities", "specdef.utilities", error=TaskError)


def utility_for(kind: ModelKind, name: str | None = None) -> Utility:
    """The utility of that name, or the kind's own when None.

    Raises:
        TaskError: unknown, or it cannot be measured of this kind of model.
    """
    utility = UTILITIES.get(kind.default_utility if name is None else name)
    if kind.name not in utility.model_kinds:
        offered = ", ".join(other.name for other in UTILITIES if kind.name in other.model_kinds)
        raise TaskError(
            f"`utility` must be one that a model of kind {kind.name} has ({offered}); got {utility.name!r}."
        )
    return utility
