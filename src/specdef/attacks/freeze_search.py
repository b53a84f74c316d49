"""Which parameters to train, found from their gradients: those that a lock inflates are left alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from specdef.errors import SpecdefError
from specdef.models.base import Batch, LoadedModel
from specdef.training.batches import batches

if TYPE_CHECKING:
    from torch import nn

PREFIX = "gradients:"


def gradient_share(freeze: str) -> float | None:
    """The share of tensors to train that ``gradients:0.5`` names; None for an ordinary pattern.

    Raises:
        SpecdefError: the share is not between 0 and 1.
    """
    if not freeze.startswith(PREFIX):
        return None
    text = freeze.removeprefix(PREFIX)
    if not re.fullmatch(r"0?\.\d+", text) or not 0 < float(text) < 1:
        raise SpecdefError(f"`freeze` {PREFIX}SHARE must have a share between 0 and 1, such as 0.5; got {text!r}.")
    return float(text)


def freeze_by_gradient(loaded: LoadedModel, task: Batch, share: float, *, batch_size: int, seed: int) -> None:
    """Leave trainable the `share` of parameter tensors with the smallest gradients, freeze the others.

    A tensor's gradient is judged by its mean absolute value over one batch: what a step of Adam, which is of one size
    for every weight, changes of the loss per weight.

    Args:
        loaded: its model is changed in place.
        task: the attacker's samples, encoded.
        share: above 0 and below 1.
        batch_size: samples in the batch.
        seed: decides the batch.
    """
    model: nn.Module = loaded.model
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
