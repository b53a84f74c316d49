"""Singular values of batches of matrices, real or complex."""

from __future__ import annotations

import torch
from torch import Tensor


def singular_values(matrix: Tensor) -> Tensor:
    """In descending order: [*batch, m, n] -> [*batch, min(m, n)]."""
    values: Tensor = torch.linalg.svdvals(matrix)
    return values


def padded_singular_values(matrix: Tensor, length: int) -> Tensor:
    """In descending order, zeros appended up to `length`."""
    values = singular_values(matrix)
    return torch.nn.functional.pad(values, (0, max(0, length - values.shape[-1])))


def vector_norm(vector: Tensor) -> Tensor:
    """Euclidean norm over the last axis."""
    norm: Tensor = torch.linalg.vector_norm(vector, dim=-1)
    return norm
