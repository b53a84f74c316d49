"""Defences that train towards an objective."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from specdef.defences.base import Applied, Defence, DefenceReport, Given
from specdef.defences.descent import descend
from specdef.defences.objective import STAGE, Objective
from specdef.errors import SpecdefError
from specdef.tasks.utility import UTILITIES


class ObjectiveDefence(Defence):
    """Training towards an objective. Its `Options` derive from `TrainingOptions`."""

    model_kinds: ClassVar[tuple[str, ...]] = ("causal-lm",)
    needs_data: ClassVar[bool] = True

    @abstractmethod
    def objective(self, given: Given, options: Any) -> Objective:
        """The objective for a model; it sets ``requires_grad`` of what is trained.

        Raises:
            SpecdefError: an option does not fit the model.
        """

    def apply(self, given: Given, options: Any) -> Applied:
        """Train, and keep the last state within the utility budget."""
        return descend(self.objective(given, options), given, options)

    def check(self, report: DefenceReport, options: Any) -> None:
        """Refuse a run that kept nothing it trained, or whose written model is outside the utility budget."""
        change, limit = report.utility, options.utility_factor
        if not report.applied.steps[STAGE]:
            raise SpecdefError(
                f"`lr` must be small enough that {report.utility_name} stays within a factor of {limit:g} at one "
                f"evaluation at least; {report.applied.ended}. Give a smaller one, or a smaller eval_every."
            )
        if not UTILITIES.get(report.utility_name).within(change.before, change.after, limit):
            raise SpecdefError(
                f"`model` must keep its utility in its own dtype; {report.utility_name} went from {change.before:.4g} "
                f"to {change.after:.4g} once the weights were stored. Give a model in float32."
            )
