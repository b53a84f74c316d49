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

from specdef.analysis.curvature.problem import LossProblem, mean_loss
from specdef.errors import SpecdefError
from specdef.training.batches import second_derivatives

if TYPE_CHECKING:
    import torch
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

    Math: H = d^2 L / d theta^2 with L the mean loss of `problem`; Gauss-Newton leaves out the second
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
    if kind == "hessian":
        graph: list[Any] = []
        return as_scipy(problem, lambda vector: hessian_product(problem, vector, graph))
    operator = _gauss_newton(problem)
    return as_scipy(problem, lambda vector: (operator @ vector) / problem.num_targets)


def hessian_product(problem: LossProblem, vector: torch.Tensor, graph: list[Any] | None = None) -> torch.Tensor:
    """H v by reverse-over-reverse differentiation.

    curvlinops' Hessian differentiates forward over reverse, which is silently wrong for the weights of layer norms
    under torch 2.13 (`experiments/LOG.md`); so is ``torch.func.jvp`` of a gradient.

    Args:
        problem: loss and parameters.
        vector: v, over the parameters in order.
        graph: an empty list that keeps the gradient's graph for later products, which then cost one backward pass;
            only while the parameters stay as they are.
    """
    import torch

    with second_derivatives():
        if graph:
            gradients = graph[0]
        else:
            gradients = torch.autograd.grad(mean_loss(problem), problem.parameters, create_graph=True)
            if graph is not None:
                graph.append(gradients)
        parts = vector.split([parameter.numel() for parameter in problem.parameters])
        weights = [part.view_as(parameter) for part, parameter in zip(parts, problem.parameters, strict=True)]
        found = torch.autograd.grad(gradients, problem.parameters, weights, retain_graph=graph is not None)
    return torch.cat([part.reshape(-1) for part in found])


def _gauss_newton(problem: LossProblem) -> Any:
    import torch
    from curvlinops import GGNLinearOperator
    from torch import nn

    class Outputs(nn.Module):
        """The model as curvlinops calls it: logits [targets, classes]."""

        def __init__(self) -> None:
            super().__init__()
            self.model = problem.model

        def forward(self, batch: Any) -> torch.Tensor:
            return problem.kind.predictions(self.model, tuple(batch.values()))[0]

    data = []
    for batch in problem.batches:
        with torch.no_grad():
            targets = problem.kind.predictions(problem.model, batch)[1]
        data.append(({str(at): tensor for at, tensor in enumerate(batch)}, targets))
    return GGNLinearOperator(
        Outputs(),
        nn.CrossEntropyLoss(reduction="sum"),
        problem.parameters,
        data,
        check_deterministic=False,
        batch_size_fn=lambda batch: problem.kind.num_targets(tuple(batch.values())),
    )


def as_scipy(problem: LossProblem, product: Callable[[Any], Any]) -> LinearOperator:
    """A symmetric product over a problem's parameters (torch vector in, torch vector out) as a scipy operator."""
    import torch
    from scipy.sparse.linalg import LinearOperator

    like = problem.parameters[0]
    dtype = np.dtype(str(like.dtype).removeprefix("torch."))

    def matvec(vector: Vector) -> Vector:
        given = torch.from_numpy(np.ascontiguousarray(vector, dtype=dtype).reshape(-1)).to(like.device)
        with second_derivatives():
            found = product(given)
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
