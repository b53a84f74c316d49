"""Figure 1: a four-layer MLP (ReLU), a CNN of two convolutions and two linear layers (tanh), a transformer of
two layers (ReLU); all of width 6 without biases, one output, parameters in one flat vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SIZE = 6
SAMPLES = 64
Predict = Callable[[dict[str, Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Architecture:
    """Shapes of the weights, which one is inflated, and the forward pass on [samples, ...]."""

    shapes: dict[str, tuple[int, int]]
    inflated: str
    predict: Predict
    input_shape: tuple[int, ...]

    def unpack(self, theta: Tensor) -> dict[str, Tensor]:
        parts = theta.split([a * b for a, b in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def initial(self, sigma_1: float, seed: int) -> Tensor:
        """Xavier-normal weights; the inflated one's largest singular value is set to `sigma_1`."""
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for name, (rows, columns) in self.shapes.items():
            weight = (
                torch.randn(rows, columns, generator=generator, dtype=torch.float64) * (2 / (rows + columns)) ** 0.5
            )
            if name == self.inflated:
                u, s, vh = torch.linalg.svd(weight, full_matrices=False)
                s[0] = sigma_1
                weight = (u * s) @ vh
            parts.append(weight.flatten())
        return torch.cat(parts)

    def data(self, seed: int) -> tuple[Tensor, Tensor]:
        """Gaussian inputs and targets."""
        generator = torch.Generator().manual_seed(1000 + seed)
        x = torch.randn(SAMPLES, *self.input_shape, generator=generator, dtype=torch.float64)
        return x, torch.randn(SAMPLES, generator=generator, dtype=torch.float64)

    def loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return (self.predict(self.unpack(theta), x) - y).square().mean()


def _mlp(w: dict[str, Tensor], x: Tensor) -> Tensor:
    for name in ("w1", "w2", "w3"):
        x = torch.relu(x @ w[name].T)
    return (x @ w["out"].T).squeeze(-1)


def _cnn(w: dict[str, Tensor], x: Tensor) -> Tensor:
    for name in ("conv1", "conv2"):
        patches = functional.unfold(x, 3, padding=1)  # [samples, channels * 9, pixels]
        x = torch.tanh(w[name] @ patches).unflatten(2, (SIZE, SIZE))
    x = torch.tanh(x.mean((2, 3)) @ w["w3"].T)
    return (x @ w["out"].T).squeeze(-1)


def _transformer(w: dict[str, Tensor], x: Tensor) -> Tensor:
    for layer in ("1", "2"):
        q, k, v = (x @ w[name + layer].T for name in ("q", "k", "v"))
        x = x + torch.softmax(q @ k.mT / SIZE**0.5, dim=-1) @ v @ w["o" + layer].T
        x = x + torch.relu(x @ w["up" + layer].T) @ w["down" + layer].T
    return (x.mean(1) @ w["out"].T).squeeze(-1)


SQUARE, OUT = (SIZE, SIZE), (1, SIZE)
ARCHITECTURES = {
    "MLP": Architecture({"w1": SQUARE, "w2": SQUARE, "w3": SQUARE, "out": OUT}, "w2", _mlp, (SIZE,)),
    "CNN": Architecture(
        {"conv1": (SIZE, 9), "conv2": (SIZE, 9 * SIZE), "w3": SQUARE, "out": OUT}, "w3", _cnn, (1, SIZE, SIZE)
    ),
    "transformer": Architecture(
        {f"{name}{layer}": SQUARE for layer in (1, 2) for name in ("q", "k", "v", "o", "up", "down")} | {"out": OUT},
        "v1",
        _transformer,
        (SIZE, SIZE),
    ),
}
