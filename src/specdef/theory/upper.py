"""Upper bounds: what data and activations can contribute to curvature (Theorem 36, Lemma 35).

Theorem 36 takes sigma_1(D) <= 1 for D = diag(phi'(z)). GELU's derivative reaches 1.129 at z = sqrt(2), so a network of
GELU layers needs that factor once for each D; the conclusion, that activations contribute a constant, stands.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from specdef.theory.requirements import TheoryError, as_matrix, check_product
from specdef.theory.spectrum import singular_values, vector_norm


def kron(a: Tensor, b: Tensor) -> Tensor:
    """Kronecker product over leading batch axes: [*batch, m, n], [*batch, p, q] -> [*batch, m p, n q]."""
    product = a[..., :, None, :, None] * b[..., None, :, None, :]
    return product.reshape(*product.shape[:-4], a.shape[-2] * b.shape[-2], a.shape[-1] * b.shape[-1])


def outer_product_upper_bound(
    weight: Float[Tensor, "*batch m n"], z: Float[Tensor, "*batch n"], x: Float[Tensor, "*batch p"]
) -> Float[Tensor, "*batch"]:
    """Upper bound of sigma_1 of a Hessian block (W z) x^T that the data enter through an outer product.

    Math (Lemma 35, Theorem 36): sigma_1(W z x^T) = ||W z|| ||x|| <= sigma_1(W) ||z|| ||x||.

    Args:
        weight: W [*batch, m, n], any floating dtype.
        z: intermediate vector [*batch, n].
        x: data [*batch, p].

    Returns:
        The bound, float64 [*batch], in the units of the block.

    Raises:
        SpecdefError: shapes do not conform.

    Example:
        >>> import torch
        >>> bound = outer_product_upper_bound(2 * torch.eye(2), torch.tensor([3.0, 4.0]), torch.tensor([1.0]))
        >>> bound.round(decimals=9).item()
        10.0
    """
    weight, z, x = as_matrix("weight", weight), as_matrix("z", z, 1), as_matrix("x", x, 1)
    check_product("weight` and `z", weight.shape, (*z.shape, 1))
    norms = vector_norm(z) * vector_norm(x)
    return singular_values(weight)[..., 0] * norms


def kronecker_upper_bound(a: Float[Tensor, "*batch m n"], b: Float[Tensor, "*batch p q"]) -> Float[Tensor, "*batch"]:
    """Sigma_1 of a block A (x) B; an equality.

    Math (Theorem 36): sigma_1(A (x) B) = sigma_1(A) sigma_1(B); for B = x a column of data, sigma_1(A) ||x||.

    Args:
        a: A [*batch, m, n], any floating dtype.
        b: B [*batch, p, q].

    Returns:
        The value, float64 [*batch], in the units of the block.

    Raises:
        SpecdefError: not matrices, or an entry is not finite.

    Example:
        >>> import torch
        >>> kronecker_upper_bound(2 * torch.eye(2), torch.tensor([[3.0], [4.0]])).round(decimals=9).item()
        10.0
    """
    a, b = as_matrix("a", a), as_matrix("b", b)
    return singular_values(a)[..., 0] * singular_values(b)[..., 0]


def block_sum_upper_bound(blocks: Sequence[Sequence[Float[Tensor, "*batch _ _"]]]) -> Float[Tensor, "*batch"]:
    """Upper bound of sigma_1 of a matrix given by its grid of blocks.

    Math (Theorem 36): sigma_1(H) <= sum over blocks of sigma_1(H_ij), by the triangle inequality.

    Args:
        blocks: rows of blocks; blocks of one row share their number of rows, blocks of one column their columns.

    Returns:
        The bound, float64 [*batch], in the units of H.

    Raises:
        SpecdefError: no blocks, or blocks that do not fit together.

    Example:
        >>> import torch
        >>> bound = block_sum_upper_bound([[torch.eye(2), torch.zeros(2, 1)], [torch.zeros(1, 2), torch.eye(1)]])
        >>> bound.round(decimals=9).item()
        2.0
    """
    if not blocks or any(len(row) != len(blocks[0]) or not row for row in blocks):
        raise TheoryError(
            f"`blocks` must be a full grid of blocks; got rows of {[len(row) for row in blocks]}. Fill it with zeros."
        )
    total: Tensor | None = None
    for i, row in enumerate(blocks):
        for j, block in enumerate(row):
            block = as_matrix("blocks", block)
            expected = [row[0].shape[-2], blocks[0][j].shape[-1]]
            if list(block.shape[-2:]) != expected:
                raise TheoryError(
                    f"`blocks` must fit together: block ({i}, {j}) has to be {expected}; "
                    f"got {list(block.shape[-2:])}. Transpose it or fix its neighbours."
                )
            norm = singular_values(block)[..., 0]
            total = norm if total is None else total + norm
    assert total is not None
    return total
