"""Exact first and second derivatives of the mean logistic loss, dense, for many copies at once.

f is linear in every single weight matrix where no ReLU switches, so the Hessian of the loss is
sum_n l''_n J_n J_n^T (Gauss-Newton) plus sum_n l'_n d2f_n, and the latter has no blocks within one layer: the diagonal
of the Hessian is that of Gauss-Newton.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from experiments.toy.network import Signals, Stack, run


def loss_of(logits: Tensor, y: Tensor) -> Tensor:
    """Mean logistic loss of each copy [batch]."""
    return (functional.softplus(logits) - y * logits).mean(-1)


def residuals(signals: Signals, y: Tensor) -> tuple[Tensor, Tensor]:
    """l' and l'' of every sample, divided by the number of samples."""
    p = torch.sigmoid(signals.logits)
    return (p - y) / len(y), p * (1 - p) / len(y)


def gradient(signals: Signals, r: Tensor) -> Tensor:
    """[batch, parameters]."""
    parts = [(d * r[..., None]).mT @ a for d, a in zip(signals.deltas, signals.inputs, strict=True)]
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def diagonal(signals: Signals, curvature: Tensor) -> Tensor:
    """The Hessian's exact diagonal [batch, parameters]."""
    parts = [
        (d.square() * curvature[..., None]).mT @ a.square() for d, a in zip(signals.deltas, signals.inputs, strict=True)
    ]
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def jacobian(signals: Signals) -> Tensor:
    """df/dtheta of every sample [batch, samples, parameters]."""
    parts = [d[..., :, None] * a[..., None, :] for d, a in zip(signals.deltas, signals.inputs, strict=True)]
    return torch.cat([part.flatten(2) for part in parts], dim=2)


def gauss_newton(signals: Signals, curvature: Tensor) -> Tensor:
    """sum_n l''_n J_n J_n^T, for the logistic loss also the Fisher matrix [batch, parameters, parameters]."""
    scaled = jacobian(signals) * curvature.sqrt()[..., None]
    return scaled.mT @ scaled


def hessian(stack: Stack, theta: Tensor, signals: Signals, r: Tensor, curvature: Tensor) -> Tensor:
    """The whole Hessian of the loss [batch, parameters, parameters]."""
    full = gauss_newton(signals, curvature)
    weights, layers = stack.split(theta), stack.layers
    starts = [sum(layer.size for layer in layers[:number]) for number in range(len(layers))]
    for a, first in enumerate(layers):
        own = _mask(signals, a, first.outputs)
        fixed = torch.eye(first.outputs, dtype=theta.dtype).expand(len(theta), -1, -1)
        through: Tensor | None = None  # d(inputs of layer b) / dz_a is fixed * own as long as no ReLU lies between
        for b in range(a + 1, len(layers)):
            second = layers[b]
            delta = signals.deltas[b] * r[..., None]
            if through is None:  # the sum over samples [p, i, j] does without q
                summed = (delta[..., :, None] * own[..., None, :]).flatten(2).mT @ signals.inputs[a]
                summed = summed.unflatten(1, (second.outputs, first.outputs))
                block = fixed[:, None, :, :, None] * summed[:, :, None, :, :]
            else:
                summed = (delta[..., :, None, None] * through[..., None, :, :]).flatten(2).mT @ signals.inputs[a]
                block = summed.unflatten(1, (second.outputs, second.inputs, first.outputs))
            if second.bias:
                block = functional.pad(block, (0, 0, 0, 0, 0, 1))
            block = block.flatten(3).flatten(1, 2)
            rows = slice(starts[b], starts[b] + second.size)
            columns = slice(starts[a], starts[a] + first.size)
            full[:, rows, columns] += block
            full[:, columns, rows] += block.mT
            weight = weights[b][..., : second.inputs]
            if through is None and not second.relu:
                fixed = weight @ fixed
            elif b + 1 < len(layers):
                if through is None:
                    through = fixed[:, None] * own[..., None, :]
                through = _mask(signals, b, second.outputs)[..., None] * (weight[:, None] @ through)
    return full


def _mask(signals: Signals, number: int, outputs: int) -> Tensor:
    mask = signals.masks[number]
    return mask if mask is not None else signals.deltas[number].new_ones(*signals.deltas[number].shape[:-1], outputs)


def hessian_at(stack: Stack, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The Hessian at theta [batch, parameters, parameters]."""
    signals = run(stack, theta, x)
    return hessian(stack, theta, signals, *residuals(signals, y))
