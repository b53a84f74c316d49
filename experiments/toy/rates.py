"""Does a lock still slow training when every tensor, or every parameter, may have its own rate?

Every rule uses the public weights and data alone: the curvature at the start, the size of a tensor. None knows the key.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from experiments.toy import curvature
from experiments.toy.deformations import Lock, locked
from experiments.toy.network import Stack, initial, run
from experiments.toy.parts import part
from experiments.toy.sweep import SEEDS, _say, decades, summary
from experiments.toy.training import Data, train

LOCKS = (
    Lock("none"),
    Lock("inject"),
    Lock("inject", 100.0),
    Lock("inject", 1000.0),
    Lock("fold", 2.0**7),
    Lock("fold", 2.0**10),
)
STEPS = 1000


def per_tensor_curvature(stack: Stack, theta: Tensor, data: Data) -> Tensor:
    """1 / spectral norm of every tensor's own Hessian block, spread over its parameters."""
    matrix = curvature.hessian_at(stack, theta, *data)
    ids = stack.tensor_ids()
    rates = torch.zeros_like(theta)
    for tensor in ids.unique():
        at = (ids == tensor).nonzero().squeeze(1)
        block = matrix[:, at][:, :, at]
        rates[:, at] = _inverse(torch.linalg.matrix_norm(block, ord=2))[:, None].expand(-1, len(at))
    return rates


def per_parameter_curvature(stack: Stack, theta: Tensor, data: Data) -> Tensor:
    """1 / the Hessian's diagonal; a parameter without curvature (a dead unit's) gets rate 0."""
    signals = run(stack, theta, data[0])
    return _inverse(curvature.diagonal(signals, curvature.residuals(signals, data[1])[1]))


def per_tensor_size(stack: Stack, theta: Tensor, data: Data) -> Tensor:
    """Root mean square of every tensor."""
    ids = stack.tensor_ids()
    rates = torch.zeros_like(theta)
    for tensor in ids.unique():
        rates[:, ids == tensor] = theta[:, ids == tensor].square().mean(1, keepdim=True).sqrt()
    return rates


def per_parameter_root(stack: Stack, theta: Tensor, data: Data) -> Tensor:
    """1 / root of the Hessian's diagonal: what scales like the parameter itself."""
    return per_parameter_curvature(stack, theta, data).sqrt()


def _inverse(value: Tensor) -> Tensor:
    return torch.where(value > 0, 1 / value, torch.zeros_like(value))


RULES = {
    "GD, rate per tensor, 1 / its curvature": ("GD", per_tensor_curvature, decades(-3, 0.5)),
    "GD, rate per parameter, 1 / its curvature": ("GD", per_parameter_curvature, decades(-4, -0.5)),
    "Adam, rate per tensor, its size": ("Adam", per_tensor_size, decades(-5, -0.5)),
    "Adam, rate per parameter, 1 / root of its curvature": ("Adam", per_parameter_root, decades(-4, -0.5)),
}


def measure(data: Data) -> dict[str, Any]:
    """Best of a common factor on every rule's rates, for every lock."""
    found: dict[str, Any] = {}
    for name in RULES:
        found[name] = {}
        for lock in LOCKS:
            found[name][lock.label] = row = part(f"{name} on {lock.label}", lambda n=name, k=lock: _best(n, k, data))
            print(name, lock.label, _say(row["best"]), flush=True)
    return found


def _best(name: str, lock: Lock, data: Data) -> dict[str, Any]:
    optimizer, rule, factors = RULES[name]
    start = locked(lock, initial(SEEDS))
    rates = rule(lock.stack, start, data)
    lr = torch.cat([factor * rates for factor in factors])
    settings = {"lr": lr, "eps": torch.full((len(lr),), 1e-30, dtype=lr.dtype)}
    theta = start.repeat(len(factors), 1)
    runs = train(lock.stack, optimizer, theta, settings, data, steps=STEPS, every=STEPS // 50)
    cells = [
        {"settings": {"factor": factor}, **summary(runs, slice(i * len(start), (i + 1) * len(start)))}
        for i, factor in enumerate(factors)
    ]
    spread = rates[rates > 0].max() / rates[rates > 0].min()
    return {"best": min(cells, key=lambda cell: cell["mean_loss"]), "rates_spread": spread.item()}
