"""Random batches on which bounds are tried: varied shapes, ranks and conditioning, fixed seeds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

EPS = torch.finfo(torch.float64).eps
SIZES = (1, 2, 3, 4, 5, 6)
NUM_BATCHES, BATCH = 20, 500
"""10,000 instances for every bound."""


def rounding(scale: Tensor, size: int) -> Tensor:
    """What float64 may lose: at most 5 decompositions and products, each with backward error below 4 size eps."""
    return 20 * size * EPS * scale


def matrices(shape: tuple[int, ...], generator: torch.Generator, batch: int = BATCH) -> Tensor:
    """[batch, m, n] with singular values 10^-u (u uniform up to 0, 3 or 8) or equal, and a rank from 1 to full."""
    m, n = shape
    q = min(m, n)
    left = torch.linalg.qr(torch.randn(batch, m, q, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(batch, n, q, generator=generator, dtype=torch.float64))[0]
    decades = torch.tensor([0.0, 0.0, 3.0, 8.0], dtype=torch.float64)
    spread = decades[torch.randint(4, (batch, 1), generator=generator)]
    values = 10 ** (-spread * torch.rand(batch, q, generator=generator, dtype=torch.float64))
    rank = torch.where(
        torch.rand(batch, generator=generator) < 0.5, q, torch.randint(1, q + 1, (batch,), generator=generator)
    )
    values = values * (torch.arange(q) < rank.unsqueeze(-1))
    scale = 10 ** (4 * torch.rand(batch, 1, 1, generator=generator, dtype=torch.float64) - 2)
    return scale * (left * values.unsqueeze(-2)) @ right.mT


def chains(num_factors: int, seed: int) -> Iterator[tuple[Tensor, ...]]:
    """Batches of conformable factors; a third of them share singular subspaces, so that angles of all sizes occur."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(NUM_BATCHES):
        sides = [SIZES[i] for i in torch.randint(len(SIZES), (num_factors + 1,), generator=generator).tolist()]
        factors = [matrices((m, n), generator) for m, n in pairwise(sides)]
        third = BATCH // 3
        for left, right in pairwise(factors):  # align rows of one with columns of the next
            basis = torch.linalg.svd(left[:third])[2].mT
            right[:third] = basis @ torch.linalg.svd(right[:third])[0].mT @ right[:third]
        yield tuple(factors)


def tensors(shape: tuple[int, int, int], generator: torch.Generator, batch: int = BATCH) -> Tensor:
    """[batch, n1, n2, n3] with random Fourier slices of varied rank and conditioning, some slices repeated."""
    n1, n2, n3 = shape
    slices = torch.stack([matrices((n1, n2), generator, batch) for _ in range(n3)], dim=-1)
    mode = torch.randint(3, (batch,), generator=generator)
    slices[mode == 1] = slices[mode == 1][..., :1]  # equal slices: all energy at frequency 0
    slices[mode == 2, ..., 1:] = 0  # one slice: equal energy at all frequencies
    return slices
