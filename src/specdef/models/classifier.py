"""What classifiers of any input share: one of a few labels, cross-entropy on it."""

from __future__ import annotations

from abc import ABC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.errors import CheckpointError
from specdef.models.base import Batch, ModelKind

if TYPE_CHECKING:
    import torch


class Classifier(ModelKind, ABC):
    """A kind whose batches hold their labels [rows] second, and whose `predictions` are of whole rows."""

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of the labels (nats per row)."""
        import torch

        logits, labels = self.predictions(model, batch)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return torch.nn.functional.cross_entropy(wide, labels)

    def row_losses(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of every row's label (nats), and one target a row."""
        import torch

        logits, labels = self.predictions(model, batch)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        losses = torch.nn.functional.cross_entropy(wide, labels, reduction="none")
        return losses, torch.ones_like(losses)

    def num_targets(self, batch: Batch) -> int:
        """Rows."""
        return len(batch[1])


def refuse_other_heads(model: Any, folder: Path) -> None:
    """Refuse a model that does not give one of several labels.

    Raises:
        CheckpointError: it has fewer than two labels, or gives several labels at once.
    """
    if model.config.num_labels < 2 or model.config.problem_type not in (None, "single_label_classification"):
        raise CheckpointError(
            f"`model` must be a classifier that gives one of two or more labels; {folder} has "
            f"{model.config.num_labels} and problem_type {model.config.problem_type}."
        )
