"""Third-order tensors as matrices over circular convolutions: T-product and T-SVD.

A tensor is [*batch, n1, n2, n3]; its frontal slices are t[..., i]. Fourier slices here are those of the unnormalised
DFT, because with them, and only with them, the T-product is the slice-wise matrix product: bcirc(A) is block-diagonal
with exactly these blocks. Appendix J adopts the unitary DFT throughout; its slices are smaller by sqrt(n3), a product
then needs a factor sqrt(n3), and statements that mix the two conventions fail by that factor (see tensor_bounds.py).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from specdef.theory.requirements import as_matrix, check_t_product
from specdef.theory.spectrum import singular_values


def fourier_slices(t: Tensor) -> Tensor:
    """All n3 slices of the unnormalised DFT along the third mode: [*batch, n3, n1, n2], complex128."""
    slices: Tensor = torch.fft.fft(t, dim=-1)
    return slices.movedim(-1, -3)


def t_product(
    a: Float[Tensor, "*batch n1 n2 n3"], b: Float[Tensor, "*batch n2 n4 n3"]
) -> Float[Tensor, "*batch n1 n4 n3"]:
    """T-product of two third-order tensors.

    Math (Definition 47): A * B = fold(bcirc(A) unfold(B)), that is (A * B)_k = sum over i + j = k (mod n3) of A_i B_j;
    in the Fourier domain, slice by slice, Ahat_k Bhat_k.

    Args:
        a: A [*batch, n1, n2, n3], any floating dtype.
        b: B [*batch, n2, n4, n3].

    Returns:
        A * B, float64 [*batch, n1, n4, n3].

    Raises:
        SpecdefError: not third-order tensors, or inner or third dimensions differ.

    Example:
        >>> a, b = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0]]])
        >>> t_product(a, b).round(decimals=9).tolist()
        [[[11.0, 10.0]]]
    """
    a, b = as_matrix("a", a, 3), as_matrix("b", b, 3)
    check_t_product(a, b)
    return _from_half(_half(a) @ _half(b), a.shape[-1])


def t_transpose(t: Float[Tensor, "*batch n1 n2 n3"]) -> Float[Tensor, "*batch n2 n1 n3"]:
    """Transpose under the T-product: every frontal slice transposed, slices 2 to n3 reversed.

    Math: bcirc(T^T) = bcirc(T)^T; (A * B)^T = B^T * A^T.

    Args:
        t: T [*batch, n1, n2, n3], any floating dtype.

    Returns:
        T^T, float64 [*batch, n2, n1, n3].

    Raises:
        SpecdefError: not a third-order tensor.

    Example:
        >>> t_transpose(torch.tensor([[[1.0, 2.0, 3.0]]])).tolist()
        [[[1.0, 3.0, 2.0]]]
    """
    t = as_matrix("t", t, 3)
    return torch.cat([t[..., :1], t[..., 1:].flip(-1)], dim=-1).transpose(-3, -2)


def tensor_singular_values(t: Float[Tensor, "*batch n1 n2 n3"]) -> Float[Tensor, "*batch q"]:
    """Tensor singular values of the T-SVD, in descending order.

    Math (Theorem 48): sigma_i(T) = S[i, i, first frontal slice] = (1/n3) sum_k sigma_i(That_k), the mean over slices of
    the unnormalised DFT. S is the same tensor under the unitary DFT, where that entry is (1/sqrt(n3)) times the sum,
    not the mean, of the slices' values. For n3 = 1 these are the matrix's.

    Args:
        t: T [*batch, n1, n2, n3], any floating dtype.

    Returns:
        Values, float64 [*batch, min(n1, n2)], in the units of T.

    Raises:
        SpecdefError: not a third-order tensor, or an entry is not finite.

    Example:
        >>> tensor_singular_values(torch.tensor([[[3.0, 0.0]], [[0.0, 4.0]]])).round(decimals=9).tolist()
        [5.0]
    """
    return singular_values(fourier_slices(as_matrix("t", t, 3))).mean(-2)


def t_svd(t: Float[Tensor, "*batch n1 n2 n3"]) -> tuple[Tensor, Tensor, Tensor]:
    """The three factors of the T-SVD.

    Math (Theorem 48): T = U * S * V^T, U and V orthogonal under the T-product, S f-diagonal. The slices 0 and n3/2 of a
    real tensor are decomposed as real matrices, so that the factors are real.

    Args:
        t: T [*batch, n1, n2, n3], any floating dtype.

    Returns:
        U [*batch, n1, q, n3], S [*batch, q, q, n3], V [*batch, n2, q, n3], float64, q = min(n1, n2): the thin form,
        U^T * U = V^T * V = identity.

    Raises:
        SpecdefError: not a third-order tensor, or an entry is not finite.

    Example:
        >>> t = torch.arange(12.0).reshape(2, 2, 3)
        >>> u, s, v = t_svd(t)
        >>> torch.allclose(t_product(t_product(u, s), t_transpose(v)), t.double())
        True
    """
    t = as_matrix("t", t, 3)
    n3 = t.shape[-1]
    left, values, right = [], [], []
    for index, part in enumerate(_half(t).unbind(-3)):
        u, s, vh = torch.linalg.svd(part.real if 2 * index in (0, n3) else part, full_matrices=False)
        left.append(u.to(part.dtype))
        values.append(torch.diag_embed(s).to(part.dtype))
        right.append(vh.mH.to(part.dtype))
    u, s, v = (_from_half(torch.stack(parts, dim=-3), n3) for parts in (left, values, right))
    return u, s, v


def _half(t: Tensor) -> Tensor:
    """The first n3 // 2 + 1 Fourier slices; the rest are their conjugates."""
    slices: Tensor = torch.fft.rfft(t, dim=-1)
    return slices.movedim(-1, -3)


def _from_half(slices: Tensor, n3: int) -> Tensor:
    t: Tensor = torch.fft.irfft(slices.movedim(-3, -1), n=n3, dim=-1)
    return t
