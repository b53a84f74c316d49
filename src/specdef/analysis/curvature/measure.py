"""`measure_curvature`: the curvature of a model folder's loss on a task, start to end."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from specdef.analysis.curvature.eigen import End, extreme_eigenpairs
from specdef.analysis.curvature.operators import Kind, curvature_operator, require_curvature_libraries, spectral_density
from specdef.analysis.curvature.problem import LossProblem, loss_problem, mean_loss
from specdef.core.devices import check_device, find_device
from specdef.core.results import Result, brief
from specdef.errors import SpecdefError
from specdef.models.base import kind_of
from specdef.models.sources import find_model
from specdef.tasks.base import TaskSpec, check_kind, check_task, make_task

if TYPE_CHECKING:
    from collections.abc import Callable

Dtype = Literal["fp32", "fp64"]


@dataclass(frozen=True)
class Eigenvalue:
    """One eigenvalue and its residual ||H v - lambda v|| / |lambda|."""

    value: float
    residual: float


@dataclass(frozen=True, repr=False)
class CurvatureReport(Result):
    """Curvature of one model on one task.

    Attributes:
        model: as given.
        kind: ``hessian`` or ``gauss-newton``.
        loss: mean loss on the samples: nats per token of a language model, per text of a classifier.
        dimension: parameters differentiated by.
        num_samples: task samples the loss is a mean over.
        sigma_1: largest singular value.
        largest: the largest eigenvalues, the largest first.
        smallest: the smallest (most negative), likewise; none for Gauss-Newton, which has no negative ones.
        density: grid and density of the spectrum; None when not asked for.
        products: matrix-vector products it took.
        seconds: wall time.
    """

    model: str
    kind: Kind
    loss: float
    dimension: int
    num_samples: int
    sigma_1: float
    largest: tuple[Eigenvalue, ...]
    smallest: tuple[Eigenvalue, ...]
    density: tuple[tuple[float, ...], tuple[float, ...]] | None
    products: int
    seconds: float

    def summary(self) -> dict[str, str]:
        """See `Result`."""
        ends = {end: brief([one.value for one in getattr(self, end)]) for end in ("largest", "smallest")}
        return {**super().summary(), **ends, "density": "-" if self.density is None else "see to_dict()"}


def measure_curvature(
    model: Path | str,
    *,
    task: TaskSpec | None = None,
    kind: Kind = "hessian",
    params: str | None = None,
    num_eigenvalues: int = 1,
    num_samples: int = 16,
    dtype: Dtype = "fp32",
    device: str = "cpu",
    density: bool = False,
    tolerance: float = 1e-3,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> CurvatureReport:
    """Extreme eigenvalues of a model's loss on the first samples of a task.

    Args:
        model: a model folder, locked or not, a hub id, or ``smollm2-135m``.
        task: whose samples; those of the default task of the model's kind when None.
        kind: ``hessian`` or ``gauss-newton``.
        params: regular expression of the parameters; all when None.
        num_eigenvalues: how many, at each end.
        num_samples: samples the loss is a mean over.
        dtype: fp32 or fp64.
        device: ``cpu`` or ``cuda``.
        density: also estimate the spectral density (Lanczos quadrature).
        tolerance: relative accuracy asked of each eigenvalue.
        seed: of the start vectors.
        progress: called with the name of each stage.

    Raises:
        SpecdefError: bad input, or the iteration did not converge.
    """
    _refuse(kind, num_eigenvalues, num_samples, dtype, params)
    check_device(device)
    if task is not None:
        check_task(task)
    if seed < 0:
        raise SpecdefError(f"`seed` must be 0 or more; got {seed}.")
    if not 0 < tolerance < 1:
        raise SpecdefError(f"`tolerance` must lie between 0 and 1; got {tolerance:g}.")
    require_curvature_libraries()
    started = time.perf_counter()
    say = progress or (lambda stage: None)
    problem = task_problem(model, task, params=params, num_samples=num_samples, dtype=dtype, device=device)
    loss = float(mean_loss(problem).detach())
    if not math.isfinite(loss):
        raise SpecdefError(f"`model` must have a finite loss on the task's samples; that of {model} is {loss}.")
    operator = curvature_operator(problem, kind)
    count = [0]
    product = operator.matvec

    def counted(vector: object) -> object:
        count[0] += 1
        return product(vector)

    operator.matvec = counted
    found: dict[str, tuple[Eigenvalue, ...]] = {"largest": (), "smallest": ()}
    # Gauss-Newton matrices have no negative eigenvalue, and their smallest is 0 to rounding: nothing to converge to.
    ends: tuple[End, ...] = ("largest", "smallest") if kind == "hessian" else ("largest",)
    for end in ends:
        say(f"{end} eigenvalue{'s' if num_eigenvalues > 1 else ''}")
        pairs = extreme_eigenpairs(operator, num_eigenvalues=num_eigenvalues, end=end, tolerance=tolerance, seed=seed)
        found[end] = tuple(Eigenvalue(pair.value, pair.residual) for pair in pairs)
    spectrum = None
    if density:
        say("spectral density")
        grid, values = spectral_density(operator, seed=seed)
        spectrum = (tuple(map(float, grid)), tuple(map(float, values)))
    return CurvatureReport(
        model=str(model),
        kind=kind,
        loss=loss,
        dimension=problem.dimension,
        num_samples=num_samples,
        sigma_1=max(abs(entry.value) for entries in found.values() for entry in entries),
        largest=found["largest"],
        smallest=found["smallest"],
        density=spectrum,
        products=count[0],
        seconds=time.perf_counter() - started,
    )


def _refuse(kind: str, num_eigenvalues: int, num_samples: int, dtype: str, params: str | None) -> None:
    """Refuse options that no model makes right, before one is fetched."""
    if kind not in ("hessian", "gauss-newton"):
        raise SpecdefError(f"`kind` must be hessian or gauss-newton; got {kind!r}.")
    for name, number in (("num_eigenvalues", num_eigenvalues), ("samples", num_samples)):
        if number < 1:
            raise SpecdefError(f"`{name}` must be at least 1; got {number}.")
    if dtype not in ("fp32", "fp64"):
        raise SpecdefError(f"`dtype` must be fp32 or fp64; got {dtype!r}.")
    try:
        re.compile(params or "")
    except re.error as error:
        raise SpecdefError(f"`params` must be a regular expression; {params!r} is none ({error}).") from error


def task_problem(
    model: Path | str,
    task: TaskSpec | None = None,
    *,
    params: str | None = None,
    num_samples: int = 16,
    dtype: Dtype = "fp32",
    device: str = "cpu",
) -> LossProblem:
    """The loss of a model folder on the first samples of a task, in one batch.

    Raises:
        SpecdefError: bad input.
    """
    import torch

    if dtype not in ("fp32", "fp64"):
        raise SpecdefError(f"`dtype` must be fp32 or fp64; got {dtype!r}.")
    place = find_device(device)
    folder = find_model(str(model))
    kind = kind_of(folder)
    made = make_task(task or TaskSpec(kind.default_task))
    check_kind(made, kind)
    if not 1 <= num_samples <= len(made.samples):
        raise SpecdefError(
            f"`samples` must lie between 1 and {len(made.samples)}, what task {made.name} has; got {num_samples}."
        )
    wide = torch.float32 if dtype == "fp32" else torch.float64
    loaded = kind.load(folder, dtype=wide)
    loaded.model.to(place)
    return loss_problem(loaded, [kind.encode(made.samples[:num_samples], loaded)], params=params)
