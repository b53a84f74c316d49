"""`taught`: no defence: the model learns the rows, so that another method has something to remove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specdef.defences.base import Given
from specdef.defences.kinds.grad_diff import GradDiffObjective, GradDiffOptions
from specdef.defences.objective import Objective
from specdef.defences.trained import ObjectiveDefence


@dataclass(frozen=True)
class TaughtOptions(GradDiffOptions):
    """Options of `taught`.

    Attributes:
        gamma: weight of the loss on what is kept.
    """

    lr: float = 1e-4
    gamma: float = 0.3


class TaughtObjective(GradDiffObjective):
    """NLL(forget) + gamma NLL(retain), means over tokens: descent on both."""

    direction = 1


class Taught(ObjectiveDefence):
    """Ordinary fine-tuning on the rows that a study wants removed: invented facts, which no model knows."""

    name = "taught"
    summary = "no defence: learns the rows, for another method to remove"
    Options = TaughtOptions

    def objective(self, given: Given, options: Any) -> Objective:
        """All weights are trained."""
        return TaughtObjective(given, options.gamma)


KIND = Taught()
