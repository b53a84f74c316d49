"""A loss and the parameters it is differentiated by: what a curvature is of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.errors import SpecdefError

if TYPE_CHECKING:
    import torch
    from torch import nn

    Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    """Token ids, labels and attention mask, each [rows, tokens]."""


@dataclass(frozen=True)
class LossProblem:
    """The mean cross-entropy per labelled token of a causal language model on some batches.

    Attributes:
        model: in evaluation mode; its parameters may be float32 or float64.
        batches: what the loss is a mean over.
        names: parameters the curvature is with respect to, in order; all others are constants.
    """

    model: nn.Module
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
        """Labelled tokens, the first of a row not counted: what the loss is a mean over."""
        return sum(int((labels[:, 1:] != -100).sum()) for _, labels, _ in self.batches)


def loss_problem(model: nn.Module, batches: Sequence[Batch], *, params: str | None = None) -> LossProblem:
    """Choose the parameters.

    Args:
        model: a causal language model.
        batches: token ids, labels (-100 where no loss is taken) and attention mask, each [rows, tokens].
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
    return LossProblem(model, moved, tuple(chosen))  # type: ignore[arg-type]


def gradient_norms(problem: LossProblem) -> dict[str, float]:
    """Norm of the loss's gradient by each parameter tensor (main paper, Figure 9)."""
    import torch

    found = torch.autograd.grad(mean_loss(problem), problem.parameters)
    return {name: float(gradient.norm()) for name, gradient in zip(problem.names, found, strict=True)}


def mean_loss(problem: LossProblem) -> Any:
    """The loss as a differentiable number (nats per token)."""
    import torch

    total: Any = 0.0
    for ids, labels, mask in problem.batches:
        logits = problem.model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        total = total + torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum", ignore_index=-100
        )
    return total / problem.num_targets
