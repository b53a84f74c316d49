"""What lies between a matrix and the one it was made of: its numerical rank, and its leading components taken away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from specdef.attacks.rewrites.channel_factors import Floats

SHARE = 0.99
"""The numerical rank of a difference is the least r whose leading components hold this share of its squared norm."""
NAMED = 3
"""Kinds of matrices that a report names, those that hold most first."""


@dataclass(frozen=True)
class Difference:
    """What is left between a tensor and its base once changes of variables are undone.

    Attributes:
        tensor: its name.
        rank: its numerical rank; the largest of a stack's. A vector's is 1.
        squared: its squared Frobenius norm.
        base: the squared norm of the base's tensor.
    """

    tensor: str
    rank: int
    squared: float
    base: float

    @property
    def layer(self) -> int | None:
        """Number of the layer it lies in; None for embeddings, final norm and heads."""
        return layer_of(self.tensor)

    @property
    def part(self) -> str:
        """The tensor's name without what stands for its layer: ``self_attn.v_proj``."""
        return re.sub(r"^.*?\.\d+\.", "", self.tensor).removesuffix(".weight")


def layer_of(tensor: str) -> int | None:
    """The first number in a tensor's name."""
    found = re.search(r"\.(\d+)\.", tensor)
    return None if found is None else int(found.group(1))


def numerical_rank(difference: Floats) -> int:
    """The least number of leading singular components that hold `SHARE` of the squared Frobenius norm; 0 of zeros.

    Example:
        >>> numerical_rank(np.diag([3.0, 3.0, 0.1])), numerical_rank(np.eye(3)), numerical_rank(np.zeros((2, 2)))
        (2, 3, 0)
    """
    held = np.linalg.eigvalsh(_gram(difference))[::-1].clip(min=0)
    if not held.any():
        return 0
    return int(np.searchsorted(np.cumsum(held), SHARE * held.sum()) + 1)


def without_leading(difference: Floats, rank: int) -> Floats:
    """A matrix [m, n] without its `rank` leading singular components.

    Math: D - D V V^T, V the leading eigenvectors of D^T D (of D D^T, from the left, where that is smaller).
    """
    if rank >= min(difference.shape):
        return np.zeros_like(difference)
    vectors = np.linalg.eigh(_gram(difference))[1][:, ::-1][:, :rank]
    if len(vectors) == difference.shape[1]:
        return np.asarray(difference - (difference @ vectors) @ vectors.T)
    return np.asarray(difference - vectors @ (vectors.T @ difference))


def in_words(differences: Sequence[Difference]) -> str:
    """Relative size, rank and place of some differences, those that hold most first."""
    size = (sum(one.squared for one in differences) / sum(one.base for one in differences)) ** 0.5
    ranks = sorted({one.rank for one in differences})
    rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"rank {ranks[0]} to {ranks[-1]}"
    return f"relative size {size:.2g}, {rank} ({SHARE:.0%} of the squared norm), {_place(differences)}"


def _place(differences: Sequence[Difference]) -> str:
    layers = sorted({one.layer for one in differences if one.layer is not None})
    inside = f"{'layer' if len(layers) == 1 else 'layers'} {_ranges(layers)}" if layers else ""
    outside = any(one.layer is None for one in differences)
    where = " and ".join(filter(None, (inside, "outside the layers" if outside else "")))
    whole = sum(one.squared for one in differences)
    held: dict[str, float] = {}
    for one in differences:
        held[one.part] = held.get(one.part, 0.0) + one.squared / whole
    parts = sorted(held, key=lambda part: -held[part])[:NAMED]
    return f"in {where}: " + ", ".join(f"{part} {held[part]:.0%}" for part in parts)


def _ranges(numbers: Sequence[int]) -> str:
    """Example: ``0-2, 5``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _gram(matrix: Floats) -> Floats:
    """The smaller of D^T D and D D^T, in float64."""
    wide = matrix.astype(np.float64)
    return np.asarray(wide.T @ wide if wide.shape[1] <= wide.shape[0] else wide @ wide.T)
