"""How many directions a stored matrix has: rounding noise is not one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from specdef.errors import PlanError
from specdef.linalg.svd import top_k_svd


def refuse_low_rank(source: Float[Tensor, "m n"], singular_values: Float[Tensor, " k"], dtype: torch.dtype) -> None:
    """Refuse to scale a direction the matrix lacks: the lock would be weaker than it claims, and could not be checked.

    Args:
        source: the matrix, widened to float64.
        singular_values: its k leading ones; all of these directions are to be scaled.
        dtype: what it was stored in.

    Raises:
        PlanError: fewer than k of them are above the rounding of the dtype.
    """
    wanted = len(singular_values)
    if not source.any():
        raise PlanError("`weight` must have a direction to scale; got a matrix of zeros. Choose another matrix.")
    rounding = torch.finfo(dtype).eps / 2 * torch.linalg.norm(source).item()
    if singular_values[-1].item() > max(rounding, _own_error(source, singular_values)):
        return
    found = numerical_rank(source, wanted, dtype)
    if found < wanted:
        raise PlanError(
            f"`rank` must be at most {found}, the directions this weight has above the rounding of {str(dtype)[6:]}; "
            f"got {wanted}. Lower it or choose another matrix."
        )


def numerical_rank(source: Float[Tensor, "m n"], limit: int, dtype: torch.dtype) -> int:
    """Rank of a matrix whose entries were rounded to a dtype, counted up to a limit.

    Math: rounding errs by at most E_ij = max(u |W_ij|, half the smallest number). Rows and columns of W, and of E with
    them, are first divided by the largest entry of W there, which keeps the rank and lets no huge row bury the others.
    Errors of that size and either sign have a spectral norm of about the largest row norm plus the largest column norm
    of E (Bandeira and van Handel 2016); singular values above that are counted.

    Args:
        source: W [m, n], finite.
        limit: count no further, at most min(m, n).
        dtype: what W was rounded to.

    Example:
        >>> third = torch.outer(torch.arange(1.0, 9.0) / 3, torch.arange(1.0, 7.0) / 7)
        >>> numerical_rank(third, 4, torch.float32), numerical_rank(torch.eye(8), 4, torch.float32)
        (1, 4)
    """
    scaled, kind = source.double(), torch.finfo(dtype)
    errors = (kind.eps / 2 * scaled.abs()).clamp(min=kind.smallest_normal * kind.eps / 2)
    for dim in (1, 0):
        largest = scaled.abs().amax(dim=dim, keepdim=True)
        largest = largest.where(largest > 0, 1.0)
        scaled, errors = scaled / largest, errors / largest
    values = top_k_svd(scaled, limit).s
    noise = sum(torch.linalg.vector_norm(errors, dim=dim).max().item() for dim in (0, 1))
    return int((values > max(noise, _own_error(scaled, values))).sum())


def _own_error(matrix: Tensor, singular_values: Tensor) -> float:
    """What the decomposition itself may be wrong by."""
    return max(matrix.shape) * torch.finfo(torch.float64).eps * singular_values[0].item()
