"""`simnpo`: `npo` without a reference model, on losses per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.defences.base import Given
from specdef.defences.objective import Objective, Rows, TrainingOptions, require
from specdef.defences.trained import ObjectiveDefence

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SimNpoOptions(TrainingOptions):
    """Options of `simnpo`.

    Attributes:
        beta: inverse temperature. 4.5 is the authors' for TOFU; their WMDP runs and other libraries have down to 0.1.
        delta: loss per token (nats) that counts as half forgotten.
        gamma: weight of the loss on what is kept.
    """

    beta: float = 4.5
    delta: float = 0.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, "beta", "be above 0", self.beta)
        require(self.delta >= 0, "delta", "be 0 or more", self.delta)
        require(self.gamma >= 0, "gamma", "be 0 or more", self.gamma)


class SimNpoObjective(Objective):
    """-(2 / beta) E log sigmoid(beta (L / length - delta)) + gamma NLL(retain); L a row's loss over its tokens.

    Math: Fan et al. 2024, "Simplicity prevails: rethinking negative preference optimization for LLM unlearning".
    """

    def __init__(self, given: Given, options: SimNpoOptions) -> None:
        self.model, self.kind, self.options = given.loaded.model, given.loaded.kind, options

    def loss(self, step: int, forget: Rows, retain: Rows) -> torch.Tensor:
        """See the class."""
        import torch

        beta, delta, gamma = self.options.beta, self.options.delta, self.options.gamma
        losses, lengths = self.kind.row_losses(self.model, forget.batch)
        margin = beta * (losses / lengths - delta)
        forgotten = -2 / beta * torch.nn.functional.logsigmoid(margin).mean()
        return forgotten + gamma * self.kind.loss(self.model, retain.batch)


class SimNpo(ObjectiveDefence):
    """Simple negative preference optimisation (Fan et al. 2024)."""

    name = "simnpo"
    summary = "npo without a reference model, on losses per token"
    Options = SimNpoOptions

    def objective(self, given: Given, options: Any) -> Objective:
        """All weights are trained."""
        return SimNpoObjective(given, options)


KIND = SimNpo()
