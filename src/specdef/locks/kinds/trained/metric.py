"""What the data make of a layer's inputs and outputs: the metric in which a trained lock's steps are short or long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Metric:
    """The inverses of a layer's two damped second moments, of its outputs' gradients and of its inputs."""

    outputs: Float[Tensor, "out out"]
    inputs: Float[Tensor, "in in"]

    def direction(self, gradient: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """The natural direction of a gradient."""
        return self.outputs @ gradient @ self.inputs


def metrics(
    loaded: LoadedModel, layers: Mapping[str, nn.Module], rows: Iterable[Batch], *, seed: int
) -> dict[str, Metric]:
    """Each layer's metric, from some rows.

    Math: A = E[x x^T] over every token or patch x that the layer reads, B = sum of g g^T over the same places and all
    rows, divided by the number of targets, g the gradient of -log p(y) with y drawn from the model's own p. A change D
    of the weight moves the outputs' distribution by about tr(B D A D^T) / 2 nats in the mean (K-FAC: Martens, Grosse
    2015; for convolutions Grosse, Martens 2016), so B^-1 G A^-1 is the direction of a gradient G that moves it least.

    Args:
        loaded: the model in evaluation mode.
        layers: name -> ``nn.Linear``, transformers ``Conv1D`` or ``nn.Conv2d`` of the model, whose weight has a
            gradient.
        rows: batches to run it on.
        seed: of the drawn classes.
    """
    generator, targets = torch.Generator().manual_seed(seed), 0
    with _watched(layers) as (inputs, outputs), torch.enable_grad():
        for batch in rows:
            logits, _ = loaded.kind.predictions(loaded.model, batch)
            log_p = torch.log_softmax(logits, dim=-1)
            drawn = torch.multinomial(log_p.detach().exp(), 1, generator=generator)
            torch.autograd.grad(-log_p.gather(-1, drawn).sum(), [_weight(layer) for layer in layers.values()])
            targets += len(logits)
    return {name: Metric(_inverse(outputs[name] / targets), _inverse(inputs[name])) for name in layers}


@contextmanager
def _watched(layers: Mapping[str, nn.Module]) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """While it lasts, second moments of every layer's inputs, and of its outputs' gradients, are summed up."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            read = patches(module, args[0].detach())
            inputs[name] = inputs.get(name, 0) + (read.T @ read).double() / len(read)

            def back(gradient: Tensor) -> None:
                rows = gradient.flatten(2).transpose(1, 2) if isinstance(module, nn.Conv2d) else gradient
                rows = rows.reshape(-1, rows.shape[-1])
                outputs[name] = outputs.get(name, 0) + (rows.T @ rows).double()

            output.register_hook(back)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in layers.items()]
    try:
        yield inputs, outputs
    finally:
        for handle in handles:
            handle.remove()


def patches(module: nn.Module, x: Tensor) -> Float[Tensor, "places in"]:
    """What one output place of a layer reads, one row each: tokens, or the patches of a convolution."""
    if isinstance(module, nn.Conv2d):
        assert not isinstance(module.padding, str)
        x = functional.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride).transpose(1, 2)
    return x.reshape(-1, x.shape[-1])


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight


def _inverse(moment: Tensor) -> Tensor:
    sizes = moment.diagonal()
    damping = DAMPING * sizes.median() + SMALLEST * sizes.max() + torch.finfo(torch.float32).tiny
    damped = moment + damping * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(damped)).float()
