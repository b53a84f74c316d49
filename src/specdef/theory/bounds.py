"""The paper's own lower bounds: singular values of products, weighted by principal angles.

Numerically the vectors found belong to matrices within rounding of A and B, so each bound holds up to a small multiple
of eps times the product of spectral norms, however close the singular values of A or B lie.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from specdef.theory.angles import overlap, smallest_cosine
from specdef.theory.requirements import TheoryError, as_matrix, check_index, check_product
from specdef.theory.spectrum import singular_values

Form = Literal["left", "right", "transposed"]
"""Which way a triple product is bracketed: (AB)C, A(BC), or (AB)C of the transpose C^T B^T A^T."""


def product_lower_bound(
    a: Float[Tensor, "*batch m n"], b: Float[Tensor, "*batch n p"], k: int, r: int | None = None
) -> Float[Tensor, "*batch"]:
    """Lower bound of sigma_k(AB) from singular values of A and B and the angle between their subspaces.

    Math: sigma_k(AB) >= s_{r,k}(A, B) sigma_r(A) sigma_k(B) for every r >= k (Theorem 19). With r=None the supremum
    over r (Remark 21). The remark's other step, sigma_k(AB) >= sigma_j(AB) for j >= k, never improves it: both
    s_{r,j} and sigma_j(B) only fall as j grows. The rank conditions r <= rank A, k <= rank B are not needed: beyond
    them the bound is 0.

    Args:
        a: A [*batch, m, n], any floating dtype.
        b: B [*batch, n, p], any floating dtype.
        k: which singular value of AB, 1 <= k <= min(m, n, p).
        r: which singular value of A, k <= r <= min(m, n); None takes the best.

    Returns:
        The bound, float64 [*batch], in the units of AB.

    Raises:
        SpecdefError: shapes do not conform, an index is out of range, or an entry is not finite.

    Example:
        >>> a, b = torch.diag(torch.tensor([3.0, 1.0])), torch.tensor([[0.0], [2.0]])
        >>> [round(product_lower_bound(a, b, 1, r).item(), 9) for r in (1, None)]
        [0.0, 2.0]
    """
    a, b = as_matrix("a", a), as_matrix("b", b)
    check_product("a` and `b", a.shape, b.shape)
    short, limit = min(a.shape[-2:]), min(*a.shape[-2:], b.shape[-1])
    check_index("k", k, 1, limit, f"the shortest side of {list(a.shape[-2:])} and {list(b.shape[-2:])}")
    if r is not None:
        check_index("r", r, k, short, f"from k to the short side of a {list(a.shape[-2:])}")
    return angle_bound(a, b, k, r)


def angle_bound(a: Tensor, b: Tensor, k: int, r: int | None = None) -> Tensor:
    """`product_lower_bound` without the checks; complex matrices too (V^H for V^T), for slices of a tensor."""
    overlaps, s_a, s_b = overlap(a, b), singular_values(a), singular_values(b)
    if r is not None:
        return smallest_cosine(overlaps, r, k) * s_a[..., r - 1] * s_b[..., k - 1]
    candidates = [smallest_cosine(overlaps, i, k) * s_a[..., i - 1] for i in range(k, s_a.shape[-1] + 1)]
    return torch.stack(candidates).amax(0) * s_b[..., k - 1]


def triple_lower_bound(
    a: Float[Tensor, "*batch m n"],
    b: Float[Tensor, "*batch n p"],
    c: Float[Tensor, "*batch p q"],
    k: int,
    form: Form = "left",
    r: int | None = None,
    t: int | None = None,
) -> Float[Tensor, "*batch"]:
    """Lower bound of sigma_k(ABC), Theorem 19 applied twice.

    Math (Lemma 22; the copy of the paper lost the formulas, these follow from its proof):
    left, r >= t >= k: s_{t,k}(AB, C) s_{r,t}(A, B) sigma_r(A) sigma_t(B) sigma_k(C);
    right, r >= k and t >= k: s_{r,k}(A, BC) s_{t,k}(B, C) sigma_r(A) sigma_t(B) sigma_k(C);
    transposed, r >= t >= k: s_{t,k}(C^T B^T, A^T) s_{r,t}(C^T, B^T) sigma_r(C) sigma_t(B) sigma_k(A).

    Args:
        a: A [*batch, m, n], any floating dtype.
        b: B [*batch, n, p].
        c: C [*batch, p, q].
        k: which singular value of ABC, 1 <= k <= min(m, n, p, q).
        form: the bracketing, see ``Form``.
        r: index into the outer factor's singular values (A; transposed: C); None takes the best.
        t: index into B's singular values; None takes the best.

    Returns:
        The bound, float64 [*batch], in the units of ABC.

    Raises:
        SpecdefError: shapes do not conform, an index is out of range, an unknown form, or an entry is not finite.

    Example:
        >>> a, b, c = torch.eye(2), torch.diag(torch.tensor([5.0, 1.0])), torch.tensor([[1.0], [0.0]])
        >>> [triple_lower_bound(a, b, c, 1, form).round(decimals=9).item() for form in ("left", "right", "transposed")]
        [5.0, 5.0, 5.0]
    """
    a, b, c = as_matrix("a", a), as_matrix("b", b), as_matrix("c", c)
    check_product("a`, `b` and `c", a.shape, b.shape, c.shape)
    check_index("k", k, 1, min(*a.shape[-2:], *c.shape[-2:]), "the shortest side of the three factors")
    if form not in ("left", "right", "transposed"):
        raise TheoryError(f"`form` must be left, right or transposed; got {form!r}. The default is left.")
    if form == "transposed":
        a, b, c = c.mT, b.mT, a.mT
    inner, middle = min(a.shape[-2:]), min(b.shape[-2:])
    nested = form != "right"  # r >= t, and t indexes AB: at most rank(AB)
    t_high = min(inner, middle) if nested else middle
    if t is not None:
        check_index("t", t, k, t_high, "from k to the short side of b" + (" and of the outer factor" if nested else ""))
    r_low = (t or k) if nested else k
    if r is not None:
        check_index("r", r, r_low, inner, f"from {'t' if nested else 'k'} to the short side of the outer factor")
    t_values = [t] if t is not None else list(range(k, (min(r, t_high) if nested and r is not None else t_high) + 1))
    r_values = [r] if r is not None else list(range(r_low, inner + 1))
    return _nested(a, b, c, k, r_values, t_values) if nested else _right(a, b, c, k, r_values, t_values)


def _nested(a: Tensor, b: Tensor, c: Tensor, k: int, r_values: list[int], t_values: list[int]) -> Tensor:
    first, second = overlap(a, b), overlap(a @ b, c)
    s_a, s_b, s_c = (singular_values(x) for x in (a, b, c))
    best = []
    for t in t_values:
        inner = torch.stack([smallest_cosine(first, r, t) * s_a[..., r - 1] for r in r_values if r >= t]).amax(0)
        best.append(smallest_cosine(second, t, k) * inner * s_b[..., t - 1])
    return torch.stack(best).amax(0) * s_c[..., k - 1]


def _right(a: Tensor, b: Tensor, c: Tensor, k: int, r_values: list[int], t_values: list[int]) -> Tensor:
    first, second = overlap(a, b @ c), overlap(b, c)
    s_a, s_b, s_c = (singular_values(x) for x in (a, b, c))
    outer = torch.stack([smallest_cosine(first, r, k) * s_a[..., r - 1] for r in r_values]).amax(0)
    inner = torch.stack([smallest_cosine(second, t, k) * s_b[..., t - 1] for t in t_values]).amax(0)
    return outer * inner * s_c[..., k - 1]


def hessian_lower_bound(
    a: Float[Tensor, "*batch m n"],
    w: Float[Tensor, "*batch n p"],
    b: Float[Tensor, "*batch p q"],
    form: Form = "left",
    r: int | None = None,
    t: int | None = None,
) -> Float[Tensor, "*batch"]:
    """Lower bound of sigma_1(H) for any Hessian H with a block A W B.

    Math (Theorems 3 and 24): sigma_1(H) >= sigma_1(A W B) >= sup over (r, t) of
    s_{r,t}(A, W) s_{t,1}(AW, B) sigma_r(A) sigma_t(W) sigma_1(B). The first step is Poincare separation (Corollary 23),
    the second Lemma 22 at k = 1. It needs the block to be exactly A W B: an additive remainder (Remark 26) costs
    sigma_1 of the remainder.

    Args:
        a: A [*batch, m, n], the factor before the weight; any floating dtype.
        w: W [*batch, n, p], the weight whose spectrum the defender controls.
        b: B [*batch, p, q], the factor after it.
        form: the bracketing, see ``Form``.
        r: fixed index into the outer factor; None takes the supremum.
        t: fixed index into W; None takes the supremum.

    Returns:
        The bound, float64 [*batch], in the units of the Hessian.

    Raises:
        SpecdefError: as `triple_lower_bound`.

    Example:
        >>> bound = hessian_lower_bound(torch.eye(2), torch.diag(torch.tensor([9.0, 1.0])), torch.eye(2))
        >>> bound.round(decimals=9).item()
        9.0
    """
    return triple_lower_bound(a, w, b, 1, form, r, t)
