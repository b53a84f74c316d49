"""`grad-diff`: gradient ascent on what is to be forgotten, descent on what is to be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.defences.base import Given
from specdef.defences.objective import Objective, Rows, TrainingOptions, require
from specdef.defences.trained import ObjectiveDefence

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class GradDiffOptions(TrainingOptions):
    """Options of `grad-diff`.

    Attributes:
        gamma: weight of the loss on what is kept.
    """

    lr: float = 5e-6
    gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.gamma >= 0, "gamma", "be 0 or more", self.gamma)


class GradDiffObjective(Objective):
    """-NLL(forget) + gamma NLL(retain), means over tokens. It has no lower bound: the utility budget ends it.

    Attributes:
        direction: sign of the first term.
    """

    direction = -1

    def __init__(self, given: Given, gamma: float) -> None:
        self.model, self.kind, self.gamma = given.loaded.model, given.loaded.kind, gamma

    def loss(self, step: int, forget: Rows, retain: Rows) -> torch.Tensor:
        """See the class."""
        kept = self.kind.loss(self.model, retain.batch)
        return self.gamma * kept + self.direction * self.kind.loss(self.model, forget.batch)


class GradDiff(ObjectiveDefence):
    """Gradient difference (Liu, Liu and Stone 2022, "Continual learning and private unlearning"; Maini et al. 2024)."""

    name = "grad-diff"
    summary = "gradient ascent on the forget rows, descent on the others"
    Options = GradDiffOptions
    model_kinds = ("causal-lm", "image-classifier")

    def objective(self, given: Given, options: Any) -> Objective:
        """All weights are trained."""
        return GradDiffObjective(given, options.gamma)


KIND = GradDiff()
