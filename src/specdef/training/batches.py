"""Batches of tokens, and their loss."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Batch = tuple[Any, Any, Any]
"""Token ids, labels and attention mask, each [rows, tokens]."""


def batches(rows: Batch, size: int, seed: int) -> Iterator[Batch]:
    """Endless shuffled batches: every row once per epoch, trimmed to the longest row of the batch."""
    draw = random.Random(seed)
    pending: list[int] = []
    while True:
        while len(pending) < size:
            order = list(range(len(rows[0])))
            draw.shuffle(order)
            pending += order
        chosen, pending = pending[:size], pending[size:]
        ids, labels, mask = (tensor[chosen] for tensor in rows)
        width = int(mask.sum(-1).max())
        yield ids[:, :width], labels[:, :width], mask[:, :width]


def token_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of the labelled tokens (nats per token)."""
    import torch

    device = next(model.parameters()).device
    ids, labels, mask = (tensor.to(device) for tensor in batch)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels[:, 1:].flatten())


@contextmanager
def second_derivatives() -> Iterator[None]:
    """Attention's math path: the fused kernels have no second derivative."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield
