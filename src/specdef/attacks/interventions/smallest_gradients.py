"""Smallest gradients: train the tensors with the smallest gradients; those that a lock inflates are left alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from specdef.attacks.base import Intervention, Trains
from specdef.errors import SpecdefError
from specdef.models.base import Batch, LoadedModel
from specdef.training.recipe import Recipe

PREFIX = "gradients:"
"""How version 1 of an attack's JSON says it, in the field of patterns."""


@dataclass(frozen=True)
class SmallestGradients(Intervention):
    """Train a share of the parameter tensors, those with the smallest gradients.

    A tensor's gradient is judged by its mean absolute value over one batch: what a step of Adam, which is of one size
    for every weight, changes of the loss per weight.

    Attributes:
        share: of the tensors, above 0 and below 1.
    """

    name: ClassVar[str] = "smallest-gradients"
    trains: ClassVar[Trains] = Trains.PART

    share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise SpecdefError(
                f"`smallest-gradients` must have a share between 0 and 1, such as 0.5; got {self.share}."
            )

    @property
    def label(self) -> str:
        """Short text for tables."""
        return f"only the {self.share:.0%} with the smallest gradients"

    def modify(self, loaded: LoadedModel, batch: Batch, recipe: Recipe) -> Any:
        """Freeze the tensors whose gradients over the recipe's first batch are largest."""
        freeze_largest(loaded, batch, self.share, batch_size=recipe.batch_size, seed=recipe.seed)
        return loaded.model

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a share such as ``0.5``."""
        if not re.fullmatch(r"0?\.\d+", text):
            raise SpecdefError(f"`{cls.name}` must have a share between 0 and 1, such as 0.5; got {text!r}.")
        return cls(float(text))

    def to_wire(self) -> dict[str, Any]:
        """Version 1's field."""
        return {"freeze": f"{PREFIX}{self.share}"}

    @classmethod
    def from_wire(cls, name: str, value: Any) -> Self | None:
        """Read version 1's field."""
        return cls(float(value.removeprefix(PREFIX))) if name == "freeze" and value.startswith(PREFIX) else None


KIND = SmallestGradients


def freeze_largest(loaded: LoadedModel, task: Batch, share: float, *, batch_size: int, seed: int) -> None:
    """Leave trainable the `share` of parameter tensors with the smallest gradients, freeze the others.

    Args:
        loaded: its model is changed in place.
        task: the attacker's samples, encoded.
        share: above 0 and below 1.
        batch_size: samples in the batch.
        seed: decides the batch.
    """
    from specdef.training.batches import batches

    model = loaded.model
    model.zero_grad(set_to_none=True)
    loaded.kind.loss(model, next(batches(task, batch_size, seed, loaded.kind))).backward()
    sizes: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            sizes[name] = float(parameter.grad.double().abs().mean())
    model.zero_grad(set_to_none=True)
    kept = set(sorted(sizes, key=sizes.__getitem__)[: max(1, round(share * len(sizes)))])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in kept)
