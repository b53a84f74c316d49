"""How well the row space of one matrix meets the column space of the next: the cosine of the largest angle."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from specdef.theory.requirements import as_matrix, check_index, check_product
from specdef.theory.spectrum import singular_values


def principal_angle_cosine(
    a: Float[Tensor, "*batch m n"], b: Float[Tensor, "*batch n p"], r: int, k: int
) -> Float[Tensor, "*batch"]:
    """Cosine of the largest principal angle between leading singular subspaces of two factors.

    Math: s_{r,k}(A, B) = sigma_min(V_r^T U_k), V_r the r leading right singular vectors of A, U_k the k leading left
    singular vectors of B, r >= k (Definition 18, Theorem 19). It is unique where sigma_r(A) > sigma_{r+1}(A) and
    sigma_k(B) > sigma_{k+1}(B); at a tie any choice of vectors is admissible in Theorem 19, and one is taken.

    Args:
        a: A [*batch, m, n], any floating dtype.
        b: B [*batch, n, p], any floating dtype.
        r: number of right vectors of A, k <= r <= min(m, n).
        k: number of left vectors of B, 1 <= k <= min(n, p).

    Returns:
        Cosines in [0, 1], float64 [*batch]; dimensionless.

    Raises:
        SpecdefError: shapes do not conform, an index is out of range, or an entry is not finite.

    Example:
        >>> a, b = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0], [4.0]])
        >>> round(principal_angle_cosine(a, b, 1, 1).item(), 12)
        0.6
    """
    a, b = as_matrix("a", a), as_matrix("b", b)
    check_product("a` and `b", a.shape, b.shape)
    check_index("k", k, 1, min(b.shape[-2:]), f"the short side of b {list(b.shape[-2:])}")
    check_index("r", r, k, min(a.shape[-2:]), f"from k to the short side of a {list(a.shape[-2:])}")
    return smallest_cosine(overlap(a, b), r, k)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """V^H U for all right singular vectors of `a` and all left ones of `b`: [*batch, min(m, n), min(n, p)]."""
    right: Tensor = torch.linalg.svd(a, full_matrices=False)[2]
    left: Tensor = torch.linalg.svd(b, full_matrices=False)[0]
    return right @ left


def smallest_cosine(overlaps: Tensor, r: int, k: int) -> Tensor:
    """sigma_k of the leading r x k part of `overlap`, clamped to 1, which rounding may pass."""
    return singular_values(overlaps[..., :r, :k])[..., -1].clamp(max=1.0)
