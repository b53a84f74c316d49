"""Extreme eigenvalues of curvature operators by Lanczos (ARPACK), each with its residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from specdef.errors import SpecdefError

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

    from specdef.analysis.curvature.operators import Vector

End = Literal["magnitude", "largest", "smallest"]
_WHICH = {"magnitude": "LM", "largest": "LA", "smallest": "SA"}
MEMORY_VECTORS = 8
"""Lanczos vectors kept for one eigenvalue; of SmolLM2-135M in float32 they take 4.3 GB."""


@dataclass(frozen=True)
class Eigenpair:
    """One eigenvalue.

    Attributes:
        value: lambda.
        residual: ||H v - lambda v|| / |lambda| for the unit vector v: lambda is within |lambda| times this of an
            eigenvalue of H.
        vector: v, in the operator's dtype.
    """

    value: float
    residual: float
    vector: Vector


def extreme_eigenpairs(
    operator: LinearOperator,
    *,
    num_eigenvalues: int = 1,
    end: End = "magnitude",
    tolerance: float = 1e-3,
    seed: int = 0,
    max_restarts: int = 50,
) -> tuple[Eigenpair, ...]:
    """The eigenvalues at one end of a symmetric operator's spectrum, most extreme first.

    Math: restarted Lanczos (ARPACK). ``magnitude`` gives the largest singular values, sigma_1 first.

    Args:
        operator: symmetric, [n, n].
        num_eigenvalues: how many, below n.
        end: ``magnitude``, ``largest`` or ``smallest`` (algebraic).
        tolerance: relative accuracy asked of each eigenvalue.
        seed: of the start vector.
        max_restarts: of the iteration.

    Raises:
        SpecdefError: `num_eigenvalues` is out of range, or the iteration did not converge.
    """
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigsh

    size = operator.shape[0]
    if end not in _WHICH:
        raise SpecdefError(f"`end` must be one of {', '.join(_WHICH)}; got {end!r}.")
    if not 1 <= num_eigenvalues < size:
        raise SpecdefError(
            f"`num_eigenvalues` must lie between 1 and {size - 1}, below the number of parameters; "
            f"got {num_eigenvalues}."
        )
    start = np.random.default_rng(seed).standard_normal(size).astype(operator.dtype)
    kept = min(size, max(2 * num_eigenvalues + 1, MEMORY_VECTORS))
    try:
        values, vectors = eigsh(
            operator, k=num_eigenvalues, which=_WHICH[end], v0=start, ncv=kept, tol=tolerance, maxiter=max_restarts
        )
    except ArpackNoConvergence as error:
        raise SpecdefError(
            f"`tolerance` must be reachable: {len(error.eigenvalues)} of {num_eigenvalues} eigenvalues converged to "
            f"{tolerance:g} in {max_restarts} restarts. Give a larger one."
        ) from error
    except ArpackError as error:
        raise SpecdefError(f"`model` must have a finite curvature that is not 0; ARPACK says: {error}.") from error
    order = np.argsort(_extremeness(values, end))[::-1]
    return tuple(_pair(operator, float(values[at]), vectors[:, at]) for at in order)


def _extremeness(values: Vector, end: End) -> Any:
    return np.abs(values) if end == "magnitude" else values if end == "largest" else -values


def _pair(operator: LinearOperator, value: float, vector: Vector) -> Eigenpair:
    unit = vector / np.linalg.norm(vector)
    difference = np.asarray(operator.matvec(unit), dtype=np.float64) - value * unit.astype(np.float64)
    return Eigenpair(value, float(np.linalg.norm(difference)) / max(abs(value), np.finfo(float).tiny), unit)


def power_iteration(
    operator: LinearOperator, *, tolerance: float = 1e-3, seed: int = 0, max_products: int = 500
) -> tuple[Eigenpair, int]:
    """The eigenvalue of largest magnitude by power iteration, as PyHessian finds it: for comparison.

    Args:
        operator: symmetric, [n, n].
        tolerance: on the residual ||H v - lambda v|| / |lambda|.
        seed: of the start vector.
        max_products: stop there, converged or not.

    Returns:
        The eigenpair and the number of products with the operator it took.
    """
    vector = np.random.default_rng(seed).standard_normal(operator.shape[0]).astype(operator.dtype)
    vector /= np.linalg.norm(vector)
    for count in range(1, max_products + 1):
        product = np.asarray(operator.matvec(vector))
        value = float(vector @ product)
        residual = float(np.linalg.norm(product - value * vector)) / max(abs(value), np.finfo(float).tiny)
        if residual <= tolerance or count == max_products:
            return Eigenpair(value, residual, vector), count
        vector = product / np.linalg.norm(product)
    raise AssertionError("max_products is at least 1")
