"""Batches: every sample once an epoch, in an order that the seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from specdef.models.base import Batch, ModelKind


def batches(rows: Batch, size: int, seed: int, kind: ModelKind) -> Iterator[Batch]:
    """Endless shuffled batches: every row once per epoch."""
    for chosen in drawn(len(rows[0]), size, seed):
        yield kind.batch(rows, chosen)


def drawn(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Which of `count` rows each of the `batches` has."""
    draw = random.Random(seed)
    pending: list[int] = []
    while True:
        while len(pending) < size:
            order = list(range(count))
            draw.shuffle(order)
            pending += order
        chosen, pending = pending[:size], pending[size:]
        yield chosen


@contextmanager
def second_derivatives() -> Iterator[None]:
    """Attention's math path: the fused kernels have no second derivative."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield
