"""Element-wise activations with their first and second derivatives, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from specdef.theory.requirements import TheoryError

ActivationName = Literal["relu", "gelu", "tanh", "identity"]


@dataclass(frozen=True)
class Activation:
    """phi, phi' and phi''; phi' of ReLU at 0 is 0, as in torch, and its phi'' is 0 everywhere."""

    value: Callable[[Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]


def _density(z: Tensor) -> Tensor:
    return torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _distribution(z: Tensor) -> Tensor:
    return (1 + torch.erf(z / math.sqrt(2))) / 2


ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation(torch.relu, lambda z: (z > 0).to(z.dtype), torch.zeros_like),
    "gelu": Activation(
        torch.nn.functional.gelu,
        lambda z: _distribution(z) + z * _density(z),
        lambda z: (2 - z * z) * _density(z),
    ),
    "tanh": Activation(
        torch.tanh, lambda z: 1 - torch.tanh(z) ** 2, lambda z: -2 * torch.tanh(z) * (1 - torch.tanh(z) ** 2)
    ),
    "identity": Activation(lambda z: z, torch.ones_like, torch.zeros_like),
}


def find_activation(name: str) -> Activation:
    """The activation of that name."""
    if name not in ACTIVATIONS:
        raise TheoryError(f"`activation` must be one of {', '.join(ACTIVATIONS)}; got {name!r}. Pick one of them.")
    return ACTIVATIONS[name]
