"""The toy's locks. Each is an invertible linear map of the parameters, phi = A theta, that keeps the function."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.toy.network import INJECTED, PLAIN, WIDTH, Stack

TOP_K = 4
"""Singular values (inject) or channels of each hidden layer (fold) that are scaled: half of them."""


@dataclass(frozen=True)
class Lock:
    """Which lock, how strong: inject at multiplier 1 inserts C = I and changes nothing else."""

    method: str
    multiplier: float = 1.0

    @property
    def label(self) -> str:
        if self.method == "none":
            return "none"
        if self.method == "fold":
            return f"fold 2^{int(self.multiplier).bit_length() - 1}"
        return "identity C" if self.multiplier == 1 else f"inject {self.multiplier:g}"

    @property
    def stack(self) -> Stack:
        return INJECTED if self.method == "inject" else PLAIN

    @property
    def base(self) -> Lock:
        """The same network without the deformation."""
        return Lock("inject") if self.method == "inject" else Lock("none")


NONE = Lock("none")
LOCKS = (
    NONE,
    *(Lock("inject", alpha) for alpha in (1.0, 10.0, 100.0, 1000.0)),
    *(Lock("fold", 2.0**e) for e in (3, 7, 10)),
)


def insert_identity(theta: Tensor) -> Tensor:
    """The plain network with C = I after its second weight."""
    first, second, third = PLAIN.split(theta)
    weight, bias = second[..., :WIDTH], second[..., WIDTH:]
    c = torch.eye(WIDTH, dtype=theta.dtype).expand(len(theta), WIDTH, WIDTH)
    return torch.cat([block.flatten(1) for block in (first, weight, torch.cat([c, bias], dim=2), third)], dim=1)


def locked(lock: Lock, plain: Tensor, *, top_k: int = TOP_K) -> Tensor:
    """The locked copies [seeds, parameters] of plain networks [seeds, 105]."""
    if lock.method == "none":
        return plain
    if lock.method == "fold":
        return plain * fold_scales(lock.multiplier, top_k)
    base = insert_identity(plain)
    if lock.multiplier == 1:
        return base
    first, weight, c, last = INJECTED.split(base)
    u, s, vh = torch.linalg.svd(weight)
    scale = torch.ones_like(s)
    scale[:, :top_k] = lock.multiplier
    inflated = (u * (scale * s)[:, None, :]) @ vh
    compensation = (u / scale[:, None, :]) @ u.mT
    c = torch.cat([compensation, c[..., WIDTH:]], dim=2)
    return torch.cat([block.flatten(1) for block in (first, inflated, c, last)], dim=1)


def fold_scales(multiplier: float, channels: int = TOP_K, hidden: tuple[int, ...] = (0, 1)) -> Tensor:
    """The factor of every plain parameter: rows of the producer up, columns of the consumer down."""
    blocks = [torch.ones(layer.outputs, layer.columns, dtype=torch.float64) for layer in PLAIN.layers]
    for number in hidden:
        blocks[number][:channels, :] *= multiplier
        blocks[number + 1][:, :channels] /= multiplier
    return torch.cat([block.flatten() for block in blocks])


def map_of(lock: Lock, plain: Tensor, *, top_k: int = TOP_K) -> Tensor:
    """A with locked = A base, dense [seeds, parameters, parameters]; base is the network of `lock.base`."""
    size = lock.stack.size
    identity = torch.eye(size, dtype=plain.dtype).repeat(len(plain), 1, 1)
    if lock.method == "none":
        return identity
    if lock.method == "fold":
        return identity * fold_scales(lock.multiplier, top_k).to(plain.dtype)
    weight = PLAIN.split(plain)[1][..., :WIDTH]
    u = torch.linalg.svd(weight).U
    scale = torch.ones(len(plain), WIDTH, dtype=plain.dtype)
    scale[:, :top_k] = lock.multiplier
    inflate, shrink = (u * scale[:, None, :]) @ u.mT, (u / scale[:, None, :]) @ u.mT
    eye = torch.eye(WIDTH, dtype=plain.dtype)
    start = INJECTED.layers[0].size
    for number in range(len(plain)):
        stop = start + WIDTH * WIDTH
        identity[number, start:stop, start:stop] = torch.kron(inflate[number], eye)  # W~ = P W
        for row in range(WIDTH):  # C~ = C P^-1, its bias column stays
            at = stop + row * (WIDTH + 1)
            identity[number, at : at + WIDTH, at : at + WIDTH] = shrink[number].T
    return identity
