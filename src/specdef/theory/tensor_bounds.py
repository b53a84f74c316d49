"""Singular value inequalities for third-order tensors under the T-SVD: Theorems 49 to 52.

The copy of the paper lost the formulas; these follow from its proofs and prose. Each holds slice by slice in the
Fourier domain and is averaged. Slices are those of the unnormalised DFT; where the paper's statement fails, the
docstring says so and tests/theory shows it.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from specdef.theory.bounds import angle_bound
from specdef.theory.requirements import TheoryError, as_matrix, check_index, check_positive, check_t_product
from specdef.theory.spectrum import padded_singular_values
from specdef.theory.tsvd import fourier_slices, tensor_singular_values


def tensor_lipschitz_upper_bound(hessian_lipschitz: float | Tensor, n3: int) -> Tensor:
    """Upper bound of sigma_1 of the third derivative from the Lipschitz constant of the Hessian.

    Math (Theorem 49, corrected): sigma_1(T) <= L2 (d + sqrt(2) (n3 - d)) / sqrt(n3), with d = 1 real Fourier vector for
    odd n3 and 2 for even. The paper prints sigma_1(T) <= L2, which fails twice. First, S's first frontal slice is
    sqrt(n3) times the mean over unitary slices: T = f1^3 + f2^3 (outer cubes of the orthonormal (1, 1)/sqrt(2) and
    (1, -1)/sqrt(2)) has L2 = 1 and sigma_1 = sqrt(2). Second, the operator norm over real directions does not carry
    over to complex Fourier vectors, ||T(u + iv)|| <= L2 (|u| + |v|): a harmonic cubic attains sqrt(2). Both are sharp.

    Args:
        hessian_lipschitz: L2 = sup over real unit u of ||T(u)||_2.
        n3: length of the third mode.

    Returns:
        The bound of ``tensor_singular_values(T)[0]``, float64.

    Raises:
        SpecdefError: L2 is not positive and finite, or n3 < 1.

    Example:
        >>> tensor_lipschitz_upper_bound(1.0, 1).round(decimals=9).item()
        1.0
    """
    check_index("n3", n3, 1, 2**31, "a length")
    l2 = torch.as_tensor(check_positive("hessian_lipschitz", hessian_lipschitz), dtype=torch.float64)
    num_real = min(n3, 1 if n3 % 2 else 2)
    return l2 * (num_real + math.sqrt(2) * (n3 - num_real)) / math.sqrt(n3)


def tensor_poincare_bounds(
    t: Float[Tensor, "*batch n1 n2 n3"], num_deleted: int
) -> tuple[Float[Tensor, "*batch q"], Float[Tensor, "*batch q"]]:
    """Interval for the tensor singular values of a subtensor that keeps the whole third mode.

    Math (Theorem 50): sigma_{i+p}(T) <= sigma_i(T_sub) <= sigma_i(T), p rows and columns deleted in total. Deleting
    frontal slices is not allowed: it can raise sigma_1.

    Args:
        t: T [*batch, n1, n2, n3], any floating dtype.
        num_deleted: p, 0 <= p <= n1 + n2 - 2.

    Returns:
        Lower and upper bounds, float64 [*batch, min(n1, n2)] each.

    Raises:
        SpecdefError: not a third-order tensor, or p out of range.

    Example:
        >>> lower, upper = tensor_poincare_bounds(torch.eye(2).unsqueeze(-1), 1)
        >>> lower.round(decimals=9).tolist(), upper.round(decimals=9).tolist()
        ([1.0, 0.0], [1.0, 1.0])
    """
    values = tensor_singular_values(t)
    rows, columns, q = t.shape[-3], t.shape[-2], values.shape[-1]
    check_index("num_deleted", num_deleted, 0, rows + columns - 2, f"what {rows} x {columns} can lose")
    padded = torch.nn.functional.pad(values, (0, num_deleted))
    return padded[..., num_deleted:], padded[..., :q]


def tensor_sum_upper_bound(
    a: Float[Tensor, "*batch n1 n2 n3"], b: Float[Tensor, "*batch n1 n2 n3"], i: int, j: int
) -> Float[Tensor, "*batch"]:
    """Upper bound of sigma_{i+j-1}(A + B).

    Math (Theorem 51): sigma_{i+j-1}(A + B) <= sigma_i(A) + sigma_j(B).

    Args:
        a: A [*batch, n1, n2, n3], any floating dtype.
        b: B, the same shape.
        i: index into A, from 1.
        j: index into B, from 1, i + j - 1 <= min(n1, n2).

    Returns:
        The bound, float64 [*batch].

    Raises:
        SpecdefError: shapes differ or an index is out of range.

    Example:
        >>> tensor_sum_upper_bound(torch.ones(1, 1, 1), torch.ones(1, 1, 1), 1, 1).round(decimals=9).item()
        2.0
    """
    if a.shape[-3:] != b.shape[-3:]:
        raise TheoryError(
            f"`b` must have the shape of a, {list(a.shape[-3:])}; got {list(b.shape[-3:])}. Only equal shapes add up."
        )
    s_a, s_b = tensor_singular_values(a), tensor_singular_values(b)
    q = s_a.shape[-1]
    check_index("i", i, 1, q, "the short side")
    check_index("j", j, 1, q + 1 - i, "so that i + j - 1 stays within the short side")
    return s_a[..., i - 1] + s_b[..., j - 1]


def tensor_product_upper_bound(
    a: Float[Tensor, "*batch n1 n2 n3"], b: Float[Tensor, "*batch n2 n4 n3"], i: int
) -> Float[Tensor, "*batch"]:
    """Upper bound of sigma_i(A * B).

    Math (Theorem 52, (16)): sigma_i(A * B) <= sigma_i(A) max_k sigma_1(Bhat_k), and its mirror; the smaller of the two.
    Slices of the unnormalised DFT. With the unitary slices the paper adopts the right side lacks a factor sqrt(n3) and
    fails, for the identity tensor already; with sigma_1(B), a mean, for the maximum it fails too.

    Args:
        a: A [*batch, n1, n2, n3], any floating dtype.
        b: B [*batch, n2, n4, n3].
        i: which tensor singular value, 1 <= i <= min(n1, n2, n4).

    Returns:
        The bound, float64 [*batch].

    Raises:
        SpecdefError: shapes do not conform or i is out of range.

    Example:
        >>> tensor_product_upper_bound(torch.ones(1, 1, 1), 3 * torch.ones(1, 1, 1), 1).round(decimals=9).item()
        3.0
    """
    s_a, s_b, _ = _slice_values(a, b, i)
    one = s_a[..., i - 1].mean(-1) * s_b[..., 0].amax(-1)
    other = s_a[..., 0].amax(-1) * s_b[..., i - 1].mean(-1)
    return torch.minimum(one, other)


def tensor_product_lower_bound(
    a: Float[Tensor, "*batch n1 n2 n3"], b: Float[Tensor, "*batch n2 n4 n3"], i: int
) -> Float[Tensor, "*batch"]:
    """Lower bound of sigma_i(A * B).

    Math (Theorem 52, (16)): sigma_i(A * B) >= sigma_i(A) min_k sigma_n(Bhat_k), and its mirror
    min_k sigma_n(Ahat_k) sigma_i(B); the larger of the two. sigma_n is the n-th singular value, n = n2 the inner
    dimension: a B with n4 < n2 gives 0 even if all its slices have full column rank, the condition the paper asks of
    the second factor in Remark 54; it is full row rank of B, or full column rank of A, that is needed.

    Args:
        a: A [*batch, n1, n2, n3], any floating dtype.
        b: B [*batch, n2, n4, n3].
        i: which tensor singular value, 1 <= i <= min(n1, n2, n4).

    Returns:
        The bound, float64 [*batch]; 0 where some slice of either factor is rank deficient.

    Raises:
        SpecdefError: shapes do not conform or i is out of range.

    Example:
        >>> tensor_product_lower_bound(torch.ones(1, 1, 1), 3 * torch.ones(1, 1, 1), 1).round(decimals=9).item()
        3.0
    """
    s_a, s_b, n = _slice_values(a, b, i)
    one = s_a[..., i - 1].mean(-1) * s_b[..., n - 1].amin(-1)
    other = s_a[..., n - 1].amin(-1) * s_b[..., i - 1].mean(-1)
    return torch.maximum(one, other)


def tensor_angle_lower_bound(
    a: Float[Tensor, "*batch n1 n2 n3"], b: Float[Tensor, "*batch n2 n4 n3"], i: int
) -> Float[Tensor, "*batch"]:
    """Lower bound of sigma_i(A * B) that survives rank deficiency: Theorem 19 in every Fourier slice.

    Math: sigma_i(A * B) >= (1/n3) sum_k sup over r of s_{r,i}(Ahat_k, Bhat_k) sigma_r(Ahat_k) sigma_i(Bhat_k). The
    paper leaves this to future work (after Theorem 52); its proof carries over to complex matrices word by word.

    Args:
        a: A [*batch, n1, n2, n3], any floating dtype.
        b: B [*batch, n2, n4, n3].
        i: which tensor singular value, 1 <= i <= min(n1, n2, n4).

    Returns:
        The bound, float64 [*batch].

    Raises:
        SpecdefError: shapes do not conform or i is out of range.

    Example:
        >>> a, b = torch.diag(torch.tensor([2.0, 0.0])), torch.tensor([[3.0], [0.0]])
        >>> tensor_angle_lower_bound(a.unsqueeze(-1), b.unsqueeze(-1), 1).round(decimals=9).item()
        6.0
    """
    a, b, _ = _factors(a, b, i)
    return angle_bound(fourier_slices(a), fourier_slices(b), i).mean(-1)


def _factors(a: Tensor, b: Tensor, i: int) -> tuple[Tensor, Tensor, int]:
    a, b = as_matrix("a", a, 3), as_matrix("b", b, 3)
    check_t_product(a, b)
    limit = min(a.shape[-3], a.shape[-2], b.shape[-2])
    check_index("i", i, 1, limit, "the shortest of n1, n2 and n4")
    return a, b, a.shape[-2]


def _slice_values(a: Tensor, b: Tensor, i: int) -> tuple[Tensor, Tensor, int]:
    """Singular values of all Fourier slices, zeros appended up to the inner dimension, and that dimension."""
    a, b, n = _factors(a, b, i)
    return padded_singular_values(fourier_slices(a), n), padded_singular_values(fourier_slices(b), n), n
