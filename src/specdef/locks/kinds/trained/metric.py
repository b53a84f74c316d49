"""Which directions of a layer's input the data use: the metric in which a trained lock's steps are short or long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from specdef.models.base import Batch, LoadedModel

DAMPING = 1e-3
"""Of the median channel's second moment: a direction with less counts as one with as much."""
SMALLEST = 1e-10
"""Of the largest channel's second moment: what float64 can still tell from nothing."""


def metrics(loaded: LoadedModel, layers: Mapping[str, nn.Module], rows: Iterable[Batch]) -> dict[str, Tensor]:
    """The inverse of each layer's damped second moment of inputs.

    Math: P = (E[x x^T] + damping I)^-1 over every token or patch x. A change D of the weight moves the layer's outputs
    by tr(D E[x x^T] D^T) in the mean square, so G P is the direction of a gradient G in that metric: the input side of
    K-FAC (Martens, Grosse 2015).

    Args:
        loaded: the model in evaluation mode.
        layers: name -> ``nn.Linear``, transformers ``Conv1D`` or ``nn.Conv2d`` of the model.
        rows: batches to run it on.

    Returns:
        Name -> float32 matrix [in, in], of a convolution [in * height * width] twice.
    """
    with _watched(layers) as moments, torch.no_grad():
        for batch in rows:
            loaded.kind.loss(loaded.model, batch)
    return {name: _inverse(moment) for name, moment in moments.items()}


@contextmanager
def _watched(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """While it lasts, second moments of what every layer reads are summed up."""
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs = patches(module, args[0].detach())
            found[name] = found.get(name, 0) + (inputs.T @ inputs).double() / len(inputs)

        return hook

    handles = [module.register_forward_pre_hook(watch(name)) for name, module in layers.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def patches(module: nn.Module, x: Tensor) -> Float[Tensor, "places in"]:
    """What one output place of a layer reads, one row each: tokens, or the patches of a convolution."""
    if isinstance(module, nn.Conv2d):
        assert not isinstance(module.padding, str)
        x = functional.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride).transpose(1, 2)
    return x.reshape(-1, x.shape[-1])


def _inverse(moment: Tensor) -> Tensor:
    sizes = moment.diagonal()
    damping = DAMPING * sizes.median() + SMALLEST * sizes.max() + torch.finfo(torch.float32).tiny
    damped = moment + damping * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(damped)).float()
