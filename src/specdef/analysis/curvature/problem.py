"""A loss and the parameters it is differentiated by: what a curvature is of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.errors import SpecdefError
from specdef.models.base import Batch, LoadedModel, ModelKind

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LossProblem:
    """The mean loss of a model on some batches.

    Attributes:
        model: in evaluation mode; its parameters may be float32 or float64.
        kind: of the model; it knows the loss.
        batches: what the loss is a mean over.
        names: parameters the curvature is with respect to, in order; all others are constants.
    """

    model: nn.Module
    kind: ModelKind
    batches: tuple[Batch, ...]
    names: tuple[str, ...]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters of `names`."""
        found = dict(self.model.named_parameters())
        return [found[name] for name in self.names]

    @property
    def dimension(self) -> int:
        """How many numbers the curvature is with respect to."""
        return sum(parameter.numel() for parameter in self.parameters)

    @property
    def num_targets(self) -> int:
        """What the loss is a mean over: labelled tokens of a language model, texts of a classifier."""
        return sum(map(self.kind.num_targets, self.batches))

    def restricted(self, params: str | None) -> LossProblem:
        """The same loss, differentiated by other parameters; see `loss_problem`."""
        return loss_problem(LoadedModel(self.model, None, self.kind), self.batches, params=params)


def loss_problem(loaded: LoadedModel, batches: Sequence[Batch], *, params: str | None = None) -> LossProblem:
    """Choose the parameters.

    Args:
        loaded: the model.
        batches: encoded samples, as the model's kind encodes them.
        params: regular expression; parameters whose name it finds. None takes all.

    Raises:
        SpecdefError: it matches none, or is no regular expression; or a chosen parameter is float16 or bfloat16, whose
            second derivatives mean nothing.
    """
    import torch

    try:
        pattern = re.compile(params or "")
    except re.error as error:
        raise SpecdefError(f"`params` must be a regular expression; {params!r} is none ({error}).") from error
    model = loaded.model
    chosen = {name: p for name, p in model.named_parameters() if pattern.search(name)}
    if not chosen:
        raise SpecdefError(f"`params` must match a parameter's name; {params!r} matches none.")
    narrow = [name for name, p in chosen.items() if p.dtype not in (torch.float32, torch.float64)]
    if narrow:
        raise SpecdefError(f"`model` must be loaded in float32 or float64 for curvature; {narrow[0]} is not.")
    if not batches:
        raise SpecdefError("`batches` must hold at least one batch; got none.")
    device = next(model.parameters()).device
    moved = tuple(tuple(tensor.to(device) for tensor in batch) for batch in batches)
    model.eval()
    return LossProblem(model, loaded.kind, moved, tuple(chosen))


def gradient_norms(problem: LossProblem) -> dict[str, float]:
    """Norm of the loss's gradient by each parameter tensor (main paper, Figure 9)."""
    import torch

    found = torch.autograd.grad(mean_loss(problem), problem.parameters)
    return {name: float(gradient.norm()) for name, gradient in zip(problem.names, found, strict=True)}


def mean_loss(problem: LossProblem) -> Any:
    """The loss as a differentiable number."""
    total: Any = 0.0
    for batch in problem.batches:
        total = total + problem.kind.loss(problem.model, batch) * problem.kind.num_targets(batch)
    return total / problem.num_targets
