"""`taught`: no defence: the model learns the rows, so that another method has something to remove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.defences.base import Given
from specdef.defences.objective import Objective, Rows, TrainingOptions, require
from specdef.defences.trained import ObjectiveDefence

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TaughtOptions(TrainingOptions):
    """Options of `taught`.

    Attributes:
        gamma: weight of the loss on what is kept.
    """

    lr: float = 1e-4
    gamma: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.gamma >= 0, "gamma", "be 0 or more", self.gamma)


class TaughtObjective(Objective):
    """NLL(forget) + gamma NLL(retain), means over tokens."""

    def __init__(self, given: Given, gamma: float) -> None:
        self.model, self.kind, self.gamma = given.loaded.model, given.loaded.kind, gamma

    def loss(self, step: int, forget: Rows, retain: Rows) -> torch.Tensor:
        """See the class."""
        learned = self.kind.loss(self.model, forget.batch)
        return learned + self.gamma * self.kind.loss(self.model, retain.batch)


class Taught(ObjectiveDefence):
    """Ordinary fine-tuning on the rows that a study wants removed: invented facts, which no model knows."""

    name = "taught"
    summary = "no defence: learns the rows, for another method to remove"
    Options = TaughtOptions

    def objective(self, given: Given, options: Any) -> Objective:
        """All weights are trained."""
        return TaughtObjective(given, options.gamma)


KIND = Taught()
