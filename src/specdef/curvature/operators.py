"""Curvature matrices as linear operators. The one file that imports curvlinops.

Products are exact (automatic differentiation). Finite differences would be meaningless on a locked model: a step is
amplified by the multiplier.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from specdef.curvature.problem import LossProblem, second_derivatives
from specdef.errors import SpecdefError

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

Kind = Literal["hessian", "gauss-newton"]
KINDS = ("hessian", "gauss-newton")
Vector = npt.NDArray[Any]


def require_curvature_libraries() -> None:
    """Raise SpecdefError unless curvlinops and scipy are installed."""
    for module in ("curvlinops", "scipy"):
        if importlib.util.find_spec(module) is None:
            raise SpecdefError(f"Curvature needs {module}. Run `pip install specdef[curvature]`.")


def curvature_operator(problem: LossProblem, kind: Kind = "hessian") -> LinearOperator:
    """The Hessian or Gauss-Newton matrix of a problem as a scipy operator, in the parameters' dtype.

    Math: H = d^2 L / d theta^2 with L the mean cross-entropy per labelled token; Gauss-Newton leaves out the second
    derivatives of the network. The vector runs over `problem.names` in order, each parameter row by row.

    Args:
        problem: loss and parameters.
        kind: ``hessian`` or ``gauss-newton``.

    Raises:
        SpecdefError: unknown kind, or curvlinops is not installed.
    """
    require_curvature_libraries()
    if kind not in KINDS:
        raise SpecdefError(f"`kind` must be one of {', '.join(KINDS)}; got {kind!r}.")
    import torch
    from curvlinops import GGNLinearOperator, HessianLinearOperator
    from torch import nn

    def logits(inputs: Any) -> torch.Tensor:
        found = problem.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
        return found.flatten(0, 1)[inputs["kept"]]  # type: ignore[no-any-return]

    data = []
    for ids, labels, mask in problem.batches:
        targets = labels[:, 1:].flatten()
        kept = targets != -100
        data.append(({"input_ids": ids, "attention_mask": mask, "kept": kept}, targets[kept]))
    operator_class = HessianLinearOperator if kind == "hessian" else GGNLinearOperator
    with second_derivatives():
        operator = operator_class(
            logits,
            nn.CrossEntropyLoss(reduction="sum"),
            problem.parameters,
            data,
            check_deterministic=False,
            batch_size_fn=lambda inputs: int(inputs["kept"].sum()),
        )
    return _as_scipy(problem, lambda vector: operator @ vector)


def _as_scipy(problem: LossProblem, product: Callable[[Any], Any]) -> LinearOperator:
    import torch
    from scipy.sparse.linalg import LinearOperator

    like = problem.parameters[0]
    dtype = np.dtype(str(like.dtype).removeprefix("torch."))

    def matvec(vector: Vector) -> Vector:
        given = torch.from_numpy(np.ascontiguousarray(vector, dtype=dtype).reshape(-1)).to(like.device)
        with second_derivatives():
            found = product(given) / problem.num_targets
        return np.asarray(found.detach().cpu().numpy())

    shape = (problem.dimension, problem.dimension)
    return LinearOperator(shape, matvec=matvec, rmatvec=matvec, dtype=dtype)


def spectral_density(
    operator: LinearOperator, *, steps: int = 32, probes: int = 4, points: int = 400, seed: int = 0
) -> tuple[Vector, Vector]:
    """Stochastic Lanczos quadrature of an operator's spectral density.

    Math: tr f(H) / n ~ mean over random unit v of e_1^T f(T) e_1, T the Lanczos matrix of H and v (Ubaru, Chen and
    Saad 2017); each eigenvalue of T becomes a Gaussian of a hundredth of the spectrum's width.

    Args:
        operator: symmetric, [n, n].
        steps: of each Lanczos run.
        probes: random start vectors.
        points: of the grid.
        seed: decides the start vectors.

    Returns:
        Grid [points] and density [points], which integrates to 1.
    """
    rng = np.random.default_rng(seed)
    runs = [_lanczos(operator, rng.standard_normal(operator.shape[0]), steps) for _ in range(probes)]
    low, high = min(values[0] for values, _ in runs), max(values[-1] for values, _ in runs)
    width = max(high - low, 1e-12 * max(abs(low), abs(high)), np.finfo(float).tiny) / 100
    grid = np.linspace(low - 10 * width, high + 10 * width, points)
    density = np.zeros(points)
    for values, weights in runs:
        bumps = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        density += bumps @ weights / probes
    return grid, density


def _lanczos(operator: LinearOperator, start: Vector, steps: int) -> tuple[Vector, Vector]:
    """Ritz values and their weights, with full reorthogonalisation."""
    basis = [start / np.linalg.norm(start)]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, operator.shape[0])):
        w = np.asarray(operator.matvec(basis[-1]), dtype=np.float64)
        diagonal.append(float(w @ basis[-1]))
        for _ in range(2):
            for vector in basis:
                w = w - (w @ vector) * vector
        norm = float(np.linalg.norm(w))
        if norm <= 1e-10 * max(map(abs, diagonal)):
            break
        beside.append(norm)
        basis.append(w / norm)
    size = len(diagonal)
    matrix = np.diag(diagonal) + np.diag(beside[: size - 1], 1) + np.diag(beside[: size - 1], -1)
    values, vectors = np.linalg.eigh(matrix)
    return values, vectors[0] ** 2
