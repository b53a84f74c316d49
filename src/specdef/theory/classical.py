"""Classical singular value inequalities the paper builds on, and the workshop paper's bounds."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from specdef.theory.requirements import TheoryError, as_matrix, check_index, check_product
from specdef.theory.spectrum import padded_singular_values, singular_values, vector_norm


def poincare_bounds(
    matrix: Float[Tensor, "*batch m n"], num_deleted: int
) -> tuple[Float[Tensor, "*batch q"], Float[Tensor, "*batch q"]]:
    """Interval for every singular value of a submatrix, whichever rows and columns were deleted.

    Math (Theorem 14, Corollary 23): with p rows and columns deleted in total,
    sigma_{i+p}(M) <= sigma_i(M_sub) <= sigma_i(M), sigma beyond min(m, n) being 0.

    Args:
        matrix: M [*batch, m, n], any floating dtype.
        num_deleted: p, rows plus columns deleted, 0 <= p <= m + n - 2.

    Returns:
        Lower and upper bounds, float64 [*batch, min(m, n)] each; take the first min(rows, columns) of M_sub.

    Raises:
        SpecdefError: not a matrix, or p out of range.

    Example:
        >>> import torch
        >>> lower, upper = poincare_bounds(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 1)
        >>> lower.round(decimals=9).tolist(), upper.round(decimals=9).tolist()
        ([2.0, 1.0, 0.0], [3.0, 2.0, 1.0])
    """
    matrix = as_matrix("matrix", matrix)
    rows, columns = matrix.shape[-2:]
    check_index("num_deleted", num_deleted, 0, rows + columns - 2, f"what {rows} x {columns} can lose")
    q = min(rows, columns)
    values = padded_singular_values(matrix, q + num_deleted)
    return values[..., num_deleted : num_deleted + q], values[..., :q]


def weyl_sum_upper_bound(
    a: Float[Tensor, "*batch m n"], b: Float[Tensor, "*batch m n"], i: int, j: int
) -> Float[Tensor, "*batch"]:
    """Upper bound of sigma_{i+j-1}(A + B).

    Math (Theorem 16): sigma_{i+j-1}(A + B) <= sigma_i(A) + sigma_j(B).

    Args:
        a: A [*batch, m, n], any floating dtype.
        b: B, the same shape.
        i: index into A, from 1.
        j: index into B, from 1, i + j - 1 <= min(m, n).

    Returns:
        The bound, float64 [*batch], in the units of A + B.

    Raises:
        SpecdefError: shapes differ or an index is out of range.

    Example:
        >>> import torch
        >>> weyl_sum_upper_bound(torch.eye(2), 2 * torch.eye(2), 1, 1).round(decimals=9).item()
        3.0
    """
    a, b, q = _summands(a, b)
    check_index("i", i, 1, q, "the short side")
    check_index("j", j, 1, q + 1 - i, "so that i + j - 1 stays within the short side")
    return singular_values(a)[..., i - 1] + singular_values(b)[..., j - 1]


def weyl_sum_lower_bound(
    a: Float[Tensor, "*batch m n"], b: Float[Tensor, "*batch m n"], i: int, j: int
) -> Float[Tensor, "*batch"]:
    """Lower bound of sigma_i(A + B); negative where B may cancel A.

    Math (Theorem 16 applied to A = (A + B) - B): sigma_i(A + B) >= sigma_{i+j-1}(A) - sigma_j(B).

    Args:
        a: A [*batch, m, n], any floating dtype.
        b: B, the same shape.
        i: index into A + B, from 1.
        j: index into B, from 1, i + j - 1 <= min(m, n).

    Returns:
        The bound, float64 [*batch], in the units of A + B.

    Raises:
        SpecdefError: shapes differ or an index is out of range.

    Example:
        >>> import torch
        >>> weyl_sum_lower_bound(3 * torch.eye(2), torch.eye(2), 1, 1).round(decimals=9).item()
        2.0
    """
    a, b, q = _summands(a, b)
    check_index("i", i, 1, q, "the short side")
    check_index("j", j, 1, q + 1 - i, "so that i + j - 1 stays within the short side")
    return singular_values(a)[..., i + j - 2] - singular_values(b)[..., j - 1]


def weyl_product_upper_bound(
    a: Float[Tensor, "*batch m n"], b: Float[Tensor, "*batch n p"], i: int, j: int
) -> Float[Tensor, "*batch"]:
    """Upper bound of sigma_{i+j-1}(AB).

    Math (Theorem 17): sigma_{i+j-1}(AB) <= sigma_i(A) sigma_j(B).

    Args:
        a: A [*batch, m, n], any floating dtype.
        b: B [*batch, n, p].
        i: index into A, from 1.
        j: index into B, from 1, i + j - 1 <= min(m, n, p).

    Returns:
        The bound, float64 [*batch], in the units of AB.

    Raises:
        SpecdefError: shapes do not conform or an index is out of range.

    Example:
        >>> import torch
        >>> weyl_product_upper_bound(2 * torch.eye(2), 3 * torch.eye(2), 1, 1).round(decimals=9).item()
        6.0
    """
    a, b = as_matrix("a", a), as_matrix("b", b)
    check_product("a` and `b", a.shape, b.shape)
    limit = min(*a.shape[-2:], b.shape[-1])
    check_index("i", i, 1, limit, "the shortest side of the factors")
    check_index("j", j, 1, limit + 1 - i, "so that i + j - 1 stays within the shortest side")
    return singular_values(a)[..., i - 1] * singular_values(b)[..., j - 1]


def weyl_product_lower_bound(
    a: Float[Tensor, "*batch m n"], b: Float[Tensor, "*batch n p"], i: int, j: int | None = None
) -> Float[Tensor, "*batch"]:
    """Lower bound of sigma_{i+j-n}(AB), n the inner dimension.

    Math: sigma_{i+j-n}(AB) >= sigma_i(A) sigma_j(B), i + j > n, sigma beyond a matrix's short side being 0. Theorem 17
    is j = n, sigma_i(AB) >= sigma_i(A) sigma_n(B), and i = n, its mirror; Lemma A.1 of the workshop paper is i = 1,
    j = n. Care: "sigma_min(B)" there must be the n-th singular value. For a B with fewer columns than rows the smallest
    of its min(n, p) values is not 0, and the printed sigma_max(A) sigma_min(B) fails: A = [1, 0], B = [0, 1]^T.

    Args:
        a: A [*batch, m, n], any floating dtype.
        b: B [*batch, n, p].
        i: index into A, 1 <= i <= n.
        j: index into B, n + 1 - i <= j <= n; None is n.

    Returns:
        The bound, float64 [*batch], in the units of AB.

    Raises:
        SpecdefError: shapes do not conform or an index is out of range.

    Example:
        >>> import torch
        >>> weyl_product_lower_bound(torch.diag(torch.tensor([5.0, 1.0])), 3 * torch.eye(2), 1).round(decimals=9).item()
        15.0
    """
    a, b = as_matrix("a", a), as_matrix("b", b)
    check_product("a` and `b", a.shape, b.shape)
    n = a.shape[-1]
    j = n if j is None else j
    check_index("i", i, 1, n, "the inner dimension")
    check_index("j", j, n + 1 - i, n, "so that i + j exceeds the inner dimension")
    return padded_singular_values(a, n)[..., i - 1] * padded_singular_values(b, n)[..., j - 1]


def sum_lower_bound(a: Float[Tensor, "*batch m n"], b: Float[Tensor, "*batch n p"], k: int) -> Float[Tensor, "*batch"]:
    """Lower bound of the sum of the k leading singular values of AB, for rank-deficient factors.

    Math (workshop Remark A.3, from Gel'fand-Naimark): sum_{i<=k} sigma_i(AB) >= sum_{i<=k} sigma_i(A) sigma_{n-i+1}(B).
    Care: for a B of rank n - d the first d terms are 0, so a positive bound needs k >= d + 1; the remark's
    "k for rank N - k" is one short.

    Args:
        a: A [*batch, m, n], any floating dtype.
        b: B [*batch, n, p].
        k: number of leading singular values, 1 <= k <= n.

    Returns:
        The bound, float64 [*batch], in the units of AB.

    Raises:
        SpecdefError: shapes do not conform or k is out of range.

    Example:
        >>> import torch
        >>> bound = sum_lower_bound(torch.diag(torch.tensor([5.0, 4.0])), torch.diag(torch.tensor([1.0, 0.0])), 2)
        >>> bound.round(decimals=9).item()
        4.0
    """
    a, b = as_matrix("a", a), as_matrix("b", b)
    check_product("a` and `b", a.shape, b.shape)
    n = a.shape[-1]
    check_index("k", k, 1, n, "the inner dimension")
    terms = padded_singular_values(a, n)[..., :n] * padded_singular_values(b, n)[..., :n].flip(-1)
    return terms[..., :k].sum(-1)


def two_layer_loss_bound(
    weight: Float[Tensor, "*batch o h"], gates: Float[Tensor, "*batch h"], x: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*batch"]:
    """Lower bound of sigma_1 of the squared-error Hessian of a two-layer ReLU network with respect to its first layer.

    Math (workshop Theorem 2.1): the block is D W2^T W2 D (x) x x^T, D = diag(1 where W1 x > 0), hence
    sigma_1(H) >= sigma_1(W2) sigma_o(W2 D) sigma_h(D) ||x||^2. One closed gate makes it 0; `product_lower_bound` of
    the same factors stays positive.

    Args:
        weight: W2 [*batch, o, h], any floating dtype.
        gates: the diagonal of D [*batch, h], derivative of the activation.
        x: input [*batch, n].

    Returns:
        The bound, float64 [*batch], in the units of the loss Hessian.

    Raises:
        SpecdefError: shapes do not conform.

    Example:
        >>> import torch
        >>> two_layer_loss_bound(2 * torch.eye(2), torch.ones(2), torch.tensor([3.0, 4.0])).round(decimals=9).item()
        100.0
    """
    weight, gates, x = as_matrix("weight", weight), as_matrix("gates", gates, 1), as_matrix("x", x, 1)
    if gates.shape[-1] != weight.shape[-1]:
        raise TheoryError(
            f"`gates` must have one entry per column of weight, {weight.shape[-1]}; got {gates.shape[-1]}. "
            "Pass the derivative of the activation at the hidden layer."
        )
    outputs = weight.shape[-2]
    gated = padded_singular_values(weight * gates.unsqueeze(-2), outputs)[..., outputs - 1]
    norm = vector_norm(x)
    return singular_values(weight)[..., 0] * gated * gates.abs().amin(-1) * norm**2


def _summands(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, int]:
    a, b = as_matrix("a", a), as_matrix("b", b)
    if a.shape[-2:] != b.shape[-2:]:
        raise TheoryError(
            f"`b` must have the shape of a, {list(a.shape[-2:])}; got {list(b.shape[-2:])}. Only equal shapes add up."
        )
    return a, b, min(a.shape[-2:])
