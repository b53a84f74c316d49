"""Bounds for a T-product plus a remainder, T = P * Q + R: (17), (18) and condition (20)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from specdef.theory.requirements import TheoryError, check_index
from specdef.theory.tensor_bounds import (
    tensor_angle_lower_bound,
    tensor_product_lower_bound,
    tensor_product_upper_bound,
)
from specdef.theory.tsvd import tensor_singular_values


def composite_upper_bound(
    p: Float[Tensor, "*batch n1 n2 n3"],
    q: Float[Tensor, "*batch n2 n4 n3"],
    r: Float[Tensor, "*batch n1 n4 n3"],
    i: int = 1,
    j: int = 1,
) -> Float[Tensor, "*batch"]:
    """Upper bound of sigma_{i+j-1}(P * Q + R).

    Math ((17)): sigma_{i+j-1}(P * Q + R) <= sigma_i(P) max_k sigma_1(Qhat_k) + sigma_j(R), or the mirror product bound.

    Args:
        p: P [*batch, n1, n2, n3], any floating dtype.
        q: Q [*batch, n2, n4, n3].
        r: R [*batch, n1, n4, n3].
        i: index into the product, from 1.
        j: index into R, from 1, i + j - 1 <= min(n1, n4).

    Returns:
        The bound, float64 [*batch].

    Raises:
        SpecdefError: shapes do not conform or an index is out of range.

    Example:
        >>> one = torch.ones(1, 1, 1)
        >>> composite_upper_bound(2 * one, 3 * one, one).round(decimals=9).item()
        7.0
    """
    return tensor_product_upper_bound(p, q, i) + _remainder(p, q, r, i, j)[..., j - 1]


def composite_lower_bound(
    p: Float[Tensor, "*batch n1 n2 n3"],
    q: Float[Tensor, "*batch n2 n4 n3"],
    r: Float[Tensor, "*batch n1 n4 n3"],
    i: int = 1,
    *,
    angles: bool = False,
) -> Float[Tensor, "*batch"]:
    """Lower bound of sigma_i(P * Q + R); negative, so vacuous, where R dominates.

    Math ((18)): sigma_i(P * Q + R) >= (lower bound of sigma_i(P * Q)) - sigma_1(R).

    Args:
        p: P [*batch, n1, n2, n3], any floating dtype.
        q: Q [*batch, n2, n4, n3].
        r: R [*batch, n1, n4, n3].
        i: which tensor singular value, 1 <= i <= min(n1, n2, n4).
        angles: take `tensor_angle_lower_bound` for the product instead of Theorem 52.

    Returns:
        The bound, float64 [*batch].

    Raises:
        SpecdefError: shapes do not conform or i is out of range.

    Example:
        >>> one = torch.ones(1, 1, 1)
        >>> composite_lower_bound(2 * one, 3 * one, one).round(decimals=9).item()
        5.0
    """
    product = tensor_angle_lower_bound(p, q, i) if angles else tensor_product_lower_bound(p, q, i)
    return product - _remainder(p, q, r, i, 1)[..., 0]


def inflation_margin(
    p: Float[Tensor, "*batch n1 n2 n3"], q: Float[Tensor, "*batch n2 n4 n3"], r: Float[Tensor, "*batch n1 n4 n3"]
) -> Float[Tensor, "*batch"]:
    """The margin delta of condition (20).

    Math: sigma_1(R) = (1 - delta) ell, ell the lower bound of sigma_1(P * Q) of Theorem 52; (20) is delta > 0. Then
    scaling P by c >= 1 leaves sigma_1(c P * Q + R) >= (c - 1 + delta) ell > 0. The paper calls this a strict increase
    over c = 1, which does not follow: P * Q = diag(1, -0.3), R = diag(-0.9, 0.9) has delta = 0.1, and sigma_1 falls
    from 0.6 at c = 1 to 0.51 at c = 1.3. It follows for delta > 1/2, as sigma_1 is convex in c and then larger at
    c = 1 than at c = 0.

    Args:
        p: P [*batch, n1, n2, n3], any floating dtype.
        q: Q [*batch, n2, n4, n3].
        r: R [*batch, n1, n4, n3].

    Returns:
        delta, float64 [*batch], at most 1; -inf where ell is 0.

    Raises:
        SpecdefError: shapes do not conform.

    Example:
        >>> one = torch.ones(1, 1, 1)
        >>> inflation_margin(2 * one, 2 * one, one).round(decimals=9).item()
        0.75
    """
    bound = tensor_product_lower_bound(p, q, 1)
    ratio = _remainder(p, q, r, 1, 1)[..., 0] / torch.where(bound > 0, bound, torch.ones_like(bound))
    return torch.where(bound > 0, 1 - ratio, torch.full_like(bound, -math.inf))


def _remainder(p: Tensor, q: Tensor, r: Tensor, i: int, j: int) -> Tensor:
    expected = [p.shape[-3], q.shape[-2], p.shape[-1]]
    if list(r.shape[-3:]) != expected:
        raise TheoryError(
            f"`r` must have the shape of P * Q, {expected}; got {list(r.shape[-3:])}. Only equal shapes add up."
        )
    values = tensor_singular_values(r)
    check_index("j", j, 1, values.shape[-1] + 1 - i, "so that i + j - 1 stays within the short side")
    return values
