"""Many copies of one small ReLU network, trained side by side: parameters are rows of a matrix [batch, parameters]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WIDTH = 8


@dataclass(frozen=True)
class Layer:
    """One affine map; its flat parameters are the rows of [W | b]."""

    outputs: int
    inputs: int
    bias: bool
    relu: bool

    @property
    def columns(self) -> int:
        return self.inputs + self.bias

    @property
    def size(self) -> int:
        return self.outputs * self.columns


@dataclass(frozen=True)
class Stack:
    """Layers one after another, ending in one logit."""

    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)

    def split(self, theta: Tensor) -> list[Tensor]:
        """[batch, parameters] -> one [batch, outputs, columns] per layer."""
        parts = theta.split([layer.size for layer in self.layers], dim=-1)
        return [
            part.unflatten(-1, (layer.outputs, layer.columns)) for part, layer in zip(parts, self.layers, strict=True)
        ]

    def tensor_ids(self) -> Tensor:
        """The tensor every parameter belongs to; weight and bias are two."""
        ids = []
        for number, layer in enumerate(self.layers):
            block = torch.full((layer.outputs, layer.columns), 2 * number)
            if layer.bias:
                block[:, -1] = 2 * number + 1
            ids.append(block.flatten())
        return torch.cat(ids)


PLAIN = Stack((Layer(WIDTH, 2, True, True), Layer(WIDTH, WIDTH, True, True), Layer(1, WIDTH, True, False)))
"""2-8-8-1, 105 parameters."""
INJECTED = Stack(
    (
        Layer(WIDTH, 2, True, True),
        Layer(WIDTH, WIDTH, False, False),
        Layer(WIDTH, WIDTH, True, True),
        Layer(1, WIDTH, True, False),
    )
)
"""The same with a linear layer C, 169 parameters: f(x) = W3 relu(C W2 relu(W1 x + b1) + b2) + b3."""


@dataclass(frozen=True)
class Signals:
    """What one pass leaves behind, per layer: inputs with a column of ones, masks of the ReLU, df/dz."""

    inputs: list[Tensor]
    masks: list[Tensor | None]
    deltas: list[Tensor]
    logits: Tensor


def run(stack: Stack, theta: Tensor, x: Tensor) -> Signals:
    """Forward and backward of f.

    Args:
        stack: the layers.
        theta: [batch, parameters].
        x: [samples, 2], the same for every copy.
    """
    weights = stack.split(theta)
    inputs, masks = [], []
    a = x.expand(len(theta), *x.shape)
    for layer, weight in zip(stack.layers, weights, strict=True):
        if layer.bias:
            a = torch.cat([a, a.new_ones(*a.shape[:-1], 1)], dim=-1)
        inputs.append(a)
        z = a @ weight.mT
        masks.append((z > 0).to(z.dtype) if layer.relu else None)
        a = z * masks[-1] if layer.relu else z
    delta = torch.ones_like(a)
    deltas = [delta]
    for number in range(len(weights) - 1, 0, -1):
        delta = delta @ weights[number][..., : stack.layers[number].inputs]
        if masks[number - 1] is not None:
            delta = delta * masks[number - 1]
        deltas.insert(0, delta)
    return Signals(inputs, masks, deltas, a.squeeze(-1))


def initial(seeds: range, dtype: torch.dtype = torch.float64) -> Tensor:
    """He-normal weights, biases uniform within 1 / sqrt(inputs); one row per seed."""
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        blocks = []
        for layer in PLAIN.layers:
            weight = torch.randn(layer.outputs, layer.inputs, generator=generator, dtype=torch.float64)
            bias = torch.rand(layer.outputs, 1, generator=generator, dtype=torch.float64) * 2 - 1
            blocks.append(torch.cat([weight * (2 / layer.inputs) ** 0.5, bias / layer.inputs**0.5], dim=1).flatten())
        rows.append(torch.cat(blocks))
    return torch.stack(rows).to(dtype)


def spirals(samples: int = 200, turns: float = 1.25, noise: float = 0.02) -> tuple[Tensor, Tensor]:
    """Two intertwined spirals: points [samples, 2] and labels 0 or 1."""
    generator = torch.Generator().manual_seed(1234)
    half = samples // 2
    radius = torch.linspace(0.15, 1.0, half, dtype=torch.float64)
    angle = 2 * torch.pi * turns * radius
    arm = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
    points = torch.cat([arm, -arm])
    points = points + noise * torch.randn(points.shape, generator=generator, dtype=torch.float64)
    return 2 * points, torch.cat([torch.zeros(half), torch.ones(half)]).double()
