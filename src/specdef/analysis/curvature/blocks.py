"""Parts of a Hessian: the block between two sets of parameters, and how fast it changes along a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from specdef.analysis.curvature.eigen import extreme_eigenpairs
from specdef.analysis.curvature.operators import as_scipy, curvature_operator, hessian_product
from specdef.analysis.curvature.problem import LossProblem

if TYPE_CHECKING:
    import torch

    from specdef.analysis.curvature.operators import Vector


def block_norm(problem: LossProblem, first: str, second: str, *, tolerance: float = 1e-4, seed: int = 0) -> float:
    """sigma_1 of the block of the Hessian between two sets of parameters (main paper, Theorem 3's block).

    Math: with B = d^2 L / d theta_1 d theta_2, sigma_1(B)^2 is the largest eigenvalue of B^T B.

    Args:
        problem: loss; which parameters it names does not matter.
        first: regular expression of the rows' parameters.
        second: of the columns' parameters; the same gives the norm of a diagonal block.
        tolerance: relative accuracy.
        seed: of the start vector.
    """
    from scipy.sparse.linalg import LinearOperator

    rows = problem.restricted(first)
    columns = problem.restricted(second)
    names = tuple(dict.fromkeys((*rows.names, *columns.names)))
    both = replace(problem, names=names)
    operator = curvature_operator(both)
    at_rows, at_columns = _positions(both, rows.names), _positions(both, columns.names)

    def forth_and_back(vector: Vector) -> Vector:
        whole = np.zeros(both.dimension, dtype=operator.dtype)
        whole[at_columns] = vector.reshape(-1)
        product = operator.matvec(whole)
        whole[:] = 0
        whole[at_rows] = product[at_rows]
        return np.asarray(operator.matvec(whole)[at_columns])

    size = len(at_columns)
    squared = LinearOperator((size, size), matvec=forth_and_back, rmatvec=forth_and_back, dtype=operator.dtype)
    return float(np.sqrt(max(0.0, extreme_eigenpairs(squared, tolerance=tolerance, seed=seed)[0].value)))


def _positions(problem: LossProblem, names: tuple[str, ...]) -> Vector:
    """Where some parameters' numbers lie in the problem's vector."""
    start, found = 0, {}
    for name, parameter in zip(problem.names, problem.parameters, strict=True):
        found[name] = np.arange(start, start + parameter.numel())
        start += parameter.numel()
    return np.concatenate([found[name] for name in names])


def hessian_lipschitz(
    problem: LossProblem, direction: Vector, step: float, *, tolerance: float = 1e-3, seed: int = 0
) -> float:
    """How fast the Hessian changes along a line: a lower bound on its Lipschitz constant L_2.

    Math: sigma_1(H(theta + t v) - H(theta)) / t for the unit direction v (Definition 41).

    Args:
        problem: loss and parameters.
        direction: v, of any length above 0, over the problem's parameters.
        step: t, in the units of the parameters.
        tolerance: relative accuracy of sigma_1.
        seed: of the start vector.
    """
    before = [parameter.detach().clone() for parameter in problem.parameters]
    move = step * direction / np.linalg.norm(direction)

    def difference(vector: torch.Tensor) -> torch.Tensor:
        here = hessian_product(problem, vector)
        _shift(problem, move)
        try:
            return hessian_product(problem, vector) - here
        finally:
            _restore(problem, before)

    changed = as_scipy(problem, difference)
    return abs(extreme_eigenpairs(changed, tolerance=tolerance, seed=seed)[0].value) / step


def _shift(problem: LossProblem, move: Vector) -> None:
    import torch

    start = 0
    with torch.no_grad():
        for parameter in problem.parameters:
            part = move[start : start + parameter.numel()]
            parameter.add_(torch.from_numpy(np.ascontiguousarray(part)).to(parameter).view_as(parameter))
            start += parameter.numel()


def _restore(problem: LossProblem, values: Sequence[torch.Tensor]) -> None:
    import torch

    with torch.no_grad():
        for parameter, value in zip(problem.parameters, values, strict=True):
            parameter.copy_(value)
