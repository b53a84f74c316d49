"""Learning rates per channel, read off the scales a lock leaves: balanced coordinates, weights as they are.

A channel that was multiplied by a has its own unit of length, a; a step of size lr there is a step of lr / a of the
original. Multiplying the update by a (and by 1 / a where the channel was divided) makes the lock invisible to Adam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from specdef.attacks.base import Intervention
from specdef.attacks.scaled_steps import refuse_unrated, scale_steps
from specdef.errors import SpecdefError
from specdef.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from specdef.locks.edits import Edit


@dataclass(frozen=True)
class ChannelRates(Intervention):
    """Give scaled channels learning rates in proportion to their scale, found in the weights."""

    name: ClassVar[str] = "channel-rates"
    knowledge: ClassVar[str] = "which weights of the architecture feed which (public)"
    needs_lock: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """Short text for tables."""
        return "a rate per channel"

    def check(self, recipe: Recipe) -> None:
        """Refuse an optimizer whose step depends on the weights.

        Raises:
            SpecdefError: it does.
        """
        refuse_unrated(self.name, recipe)

    def attach(self, optimizer: Any, model: Any, folder: Path | None) -> None:
        """Find the scales on disk and put hooks on the optimizer.

        Raises:
            SpecdefError: no channel stands out, or the model's tensors have other names than the folder's.
        """
        if folder is None:
            raise SpecdefError("`channel-rates` must be given the model's folder; the model came from none.")
        scale_updates(optimizer, model, channel_scales(folder))

    def to_wire(self) -> dict[str, Any]:
        """Version 1's field."""
        return {"channel_rates": True}

    @classmethod
    def from_wire(cls, name: str, value: Any) -> Self | None:
        """Read version 1's field."""
        return cls() if name == "channel_rates" else None


KIND = ChannelRates


def channel_scales(folder: Path) -> list[Edit]:
    """The scalings that would balance a model folder, from its weights alone.

    Raises:
        SpecdefError: no channel stands out.
    """
    from specdef.attacks.rewrites.scales import scale_edits
    from specdef.checkpoint.reader import open_checkpoint
    from specdef.locks.recognise import resolve_locked

    checkpoint = open_checkpoint(folder, publishing=False)
    edits = scale_edits(checkpoint, resolve_locked(checkpoint))
    if not edits:
        raise SpecdefError(f"`channel-rates` must find channels scaled apart; none stands out in {folder}.")
    return edits


def scale_updates(optimizer: torch.optim.Optimizer, model: torch.nn.Module, edits: Sequence[Edit]) -> None:
    """Make every step of `optimizer` move scaled channels in proportion to their scale.

    Math: an edit that would multiply entries by 2^u to balance them gives their updates the factor 2^-u. Weight decay
    is decoupled, as in AdamW.

    Args:
        optimizer: hooks are put on it.
        model: its parameters bear the tensors' names.
        edits: from `channel_scales`.
    """
    import torch

    rates: dict[torch.nn.Parameter, torch.Tensor] = {}
    parameters = dict(model.named_parameters())
    by_tensor: dict[str, list[Edit]] = {}
    for edit in edits:
        by_tensor.setdefault(edit.tensor, []).append(edit)
    for name, found in by_tensor.items():
        if name not in parameters:
            raise SpecdefError(
                f"`channel-rates` must find tensor {name} in the model; it is stored under another name."
            )
        exponents = np.zeros(tuple(parameters[name].shape))
        for edit in found:
            exponents[(slice(None),) * edit.axis + (list(edit.indices),)] -= edit.exponent
        rates[parameters[name]] = torch.from_numpy(np.exp2(exponents))
    scale_steps(optimizer, rates)
