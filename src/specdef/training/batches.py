"""Batches: every sample once an epoch, in an order that the seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from specdef.core.processes import part_of
from specdef.models.base import Batch, ModelKind


@dataclass(frozen=True)
class Share:
    """What one process has of a batch.

    Attributes:
        batch: its rows.
        part: its targets over the whole batch's. The whole batch's mean loss is the sum of part times mean loss over
            all processes; 1 for a process that is alone.
    """

    batch: Batch
    part: float


def shares(rows: Batch, size: int, seed: int, kind: ModelKind) -> Iterator[Share]:
    """`batches`, each spread over the processes of the attack.

    All processes draw the same rows, so each knows the whole batch without a word from the others. One without a row of
    its own takes the first, with part 0: the others wait for its gradients.
    """
    for chosen in drawn(len(rows[0]), size, seed):
        mine = [chosen[index] for index in part_of(len(chosen))]
        if len(mine) == len(chosen):
            yield Share(kind.batch(rows, chosen), 1.0)
            continue
        batch = kind.batch(rows, mine or chosen[:1])
        targets = kind.num_targets(batch) if mine else 0
        yield Share(batch, targets / kind.num_targets(kind.batch(rows, chosen)))


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
