"""What a defence minimises while it trains: forget some rows, keep what others need."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.errors import SpecdefError
from specdef.models.base import Batch
from specdef.training.recipe import Recipe

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TrainingOptions:
    """How an objective is minimised: AdamW, a warm-up over a tenth of the steps, then a constant rate.

    Attributes:
        steps: optimizer steps.
        lr: learning rate after the warm-up.
        batch_size: rows to forget, and as many to keep, in each step.
        eval_every: steps between evaluations; the last one within the utility budget is what is kept.
        utility_factor: how much worse than the given model's utility the defended model's may be.
    """

    steps: int = 100
    lr: float = 1e-5
    batch_size: int = 8
    eval_every: int = 10
    utility_factor: float = 1.3

    def __post_init__(self) -> None:
        self.recipe(0)
        require(1 < self.utility_factor < math.inf, "utility_factor", "be above 1", self.utility_factor)

    def recipe(self, seed: int) -> Recipe:
        """The same as data of the training loop.

        Raises:
            SpecdefError: an option is out of its range.
        """
        return Recipe(
            lr=self.lr,
            steps=self.steps,
            batch_size=self.batch_size,
            eval_every=self.eval_every,
            schedule="constant",
            weight_decay=0.0,
            seed=seed,
        )


def require(holds: bool, name: str, contract: str, value: object) -> None:
    """Refuse an option that breaks its contract.

    Raises:
        SpecdefError: it does.
    """
    if not holds:
        raise SpecdefError(f"`{name}` must {contract}; got {value!r}.")


@dataclass(frozen=True)
class Rows:
    """Some encoded samples, and which of all they are."""

    batch: Batch
    chosen: tuple[int, ...]


class Objective(ABC):
    """What one defence minimises, made for one model.

    Attributes:
        model: what is trained: its parameters with ``requires_grad``. Usually the given model, or a wrapper of it.
    """

    model: Any

    def loss(self, step: int, forget: Rows, retain: Rows) -> torch.Tensor:
        """The loss of a step.

        Args:
            step: how many steps were done before.
            forget: rows of what is to be forgotten.
            retain: as many of what is to be kept.
        """
        raise NotImplementedError

    def state(self) -> dict[str, torch.Tensor]:
        """What a step leaves behind beside the model's trained parameters: a killed run goes on with it."""
        return {}

    def go_on(self, state: dict[str, torch.Tensor]) -> None:  # noqa: B027
        """Take up what `state` said."""

    def backward(self, step: int, forget: Rows, retain: Rows) -> float:
        """Leave the step's gradients in the parameters; returns the loss."""
        loss = self.loss(step, forget, retain)
        loss.backward()
        return float(loss.detach())

    def finish(self) -> None:  # noqa: B027
        """Bring what was trained into the given model; called once, at the end."""


STAGE = "defend"
"""Name of the one stage of an objective's training."""


def only(model: Any, trained: Sequence[str]) -> None:
    """Train the parameters of these names and no others."""
    chosen = set(trained)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
