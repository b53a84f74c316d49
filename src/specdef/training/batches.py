"""Batches: every sample once an epoch, in an order that the seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from specdef.models.base import Batch, ModelKind


def batches(rows: Batch, size: int, seed: int, kind: ModelKind) -> Iterator[Batch]:
    """Endless shuffled batches: every row once per epoch."""
    draw = random.Random(seed)
    pending: list[int] = []
    while True:
        while len(pending) < size:
            order = list(range(len(rows[0])))
            draw.shuffle(order)
            pending += order
        chosen, pending = pending[:size], pending[size:]
        yield kind.batch(rows, chosen)


@contextmanager
def second_derivatives() -> Iterator[None]:
    """Attention's math path: the fused kernels have no second derivative."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield
