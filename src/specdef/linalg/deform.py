"""Spectral deformation of one weight and its compensation: the paper's Construction 1, made exact in stored numbers.

Rounding W~, whose entries grow with the multiplier, adds noise of about multiplier * eps in every direction. The dense
compensation is therefore solved against the rounded W~; the rank-k one cannot undo noise outside its span, so its
error is predicted and a deformation that misses the tolerance is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from specdef.errors import PlanError
from specdef.linalg.compensation import (
    TENSOR_NAMES,
    Basis,
    Form,
    Side,
    compensate,
    compute_dtype,
    effective_weight,
)
from specdef.linalg.svd import top_k_svd

NUM_PROBES = 64
COMFORT = 1 / 16
"""Share of the tolerance a narrow C may use up; above it a wider C is taken where that halves the error."""


@dataclass(frozen=True)
class Deformation:
    """A deformed weight and what undoes it.

    Math: side "output": W = C W~, y = C (W~ x); side "input": W = W~ C, y = W~ (C x).
    dense: C; low_rank: C = I + basis diag(scale) basis^T with scale = 1 / alpha - 1; diagonal: C = I but
    C[index, index] = factor.

    Attributes:
        weight: W~ as stored [out, in].
        tensors: the compensation as stored, under the names of ``TENSOR_NAMES[form]``.
        side: where C acts.
        basis: what was scaled, singular directions ("svd") or rows and columns ("axis").
        form: how C is stored.
        rank: k, the number of directions scaled.
        multiplier: alpha.
        weight_error: ||C W~ - W||_F / ||W||_F in float64, for both as stored.
        function_error: relative difference from the original layer on Gaussian inputs, both in the dtype C is
            applied in (`compute_dtype`), so that rounding during inference counts too.
        tolerance: what function_error was held to.
    """

    weight: Float[Tensor, "out in"]
    tensors: Mapping[str, Tensor] = field(repr=False)
    side: Side
    basis: Basis
    form: Form
    rank: int
    multiplier: float
    weight_error: float
    function_error: float
    tolerance: float

    @property
    def compensation_dtype(self) -> torch.dtype:
        """The dtype C is stored in."""
        return self.tensors[TENSOR_NAMES[self.form][-1]].dtype

    @property
    def num_extra_parameters(self) -> int:
        """Numbers stored beside W~, indices included."""
        return sum(tensor.numel() for tensor in self.tensors.values())


def default_tolerance(stored_dtype: torch.dtype) -> float:
    """Largest relative error of a locked layer's output that the stored dtype excuses.

    bfloat16 and float16: the unit roundoff, which is what rounding W itself into that dtype cost. float32: sqrt of the
    unit roundoff, 2^-12 = 2.4e-4, because the divergence of the output distribution is quadratic in the error and so
    stays at the order of one float32 rounding. float64: as float32, the widest dtype models are run in.

    Args:
        stored_dtype: the checkpoint's dtype for the weight.

    Raises:
        PlanError: not one of the four.

    Example:
        >>> default_tolerance(torch.bfloat16), default_tolerance(torch.float32)
        (0.00390625, 0.000244140625)
    """
    if stored_dtype in (torch.bfloat16, torch.float16):
        return torch.finfo(stored_dtype).eps / 2
    if stored_dtype in (torch.float32, torch.float64):
        return math.sqrt(torch.finfo(torch.float32).eps / 2)
    raise PlanError(
        f"`weight` must be stored in float64, float32, bfloat16 or float16; got {_name(stored_dtype)}. "
        "Lock the model before quantising it."
    )


def deform(
    weight: Float[Tensor, "out in"],
    k: int,
    multiplier: float,
    *,
    basis: Basis = "svd",
    form: Form = "dense",
    stored_dtype: torch.dtype | None = None,
    compensation_dtype: torch.dtype | None = None,
    tolerance: float | None = None,
    generator: torch.Generator | None = None,
) -> Deformation:
    """Scale the k leading directions of a weight by a multiplier and compensate.

    Math (Construction 1, Theorem 6): W = U diag(s) V^T, s~_i = alpha s_i for i <= k, W~ = U diag(s~) V^T.
    svd, dense: W~ is rounded first and C = W pinv(W~) solved against the result in float64, on the output side if
    out >= in and on the input side otherwise, where pinv(W~) is a true one-sided inverse. The paper's I - U U^T term
    for a tall W is left out: it acts on nothing W~ can produce but rounding noise, which it would pass on unscaled.
    svd, low_rank: on the shorter side, C = I + U diag(1/alpha - 1) U^T with U rounded first and W~ = C^-1 W by the
    Woodbury identity, so that rounding U costs nothing.
    axis: the k rows or columns of largest norm (whichever holds more) are multiplied, C divides them; one rounding of
    those entries if alpha is not a power of two, none if it is. Stored as indices and factors whatever `form` says.

    Args:
        weight: W [out, in], floating point.
        k: number of directions, 1 <= k <= min(out, in) (axis: at most the length of the side).
        multiplier: alpha, finite and above 1.
        basis: "svd" or "axis".
        form: how to store C for the svd basis, "dense" or "low_rank".
        stored_dtype: dtype of W~; None keeps the weight's.
        compensation_dtype: dtype of C; None takes the narrowest with an error under a sixteenth of the tolerance or
            within twice of the best there is.
        tolerance: largest function_error; None takes ``default_tolerance(stored_dtype)``; math.inf refuses nothing.
        generator: for the SVD's start block, on the weight's device; None is deterministic.

    Returns:
        The deformed weight, its compensation and the errors measured.

    Raises:
        PlanError: an argument is out of range, W~ leaves the range of its dtype, or no allowed dtype of C meets the
            tolerance; the message says what would.

    Example:
        >>> w = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
        >>> d = deform(w, 2, 1e6)
        >>> d.side, tuple(d.tensors["compensation"].shape), d.compensation_dtype
        ('output', (6, 6), torch.float64)
        >>> torch.allclose((d.tensors["compensation"] @ d.weight.double()).float(), w)
        True
    """
    stored_dtype = weight.dtype if stored_dtype is None else stored_dtype
    limit = default_tolerance(stored_dtype) if tolerance is None else tolerance
    _check(weight, k, multiplier, basis, form)
    source = weight.double()
    if basis == "axis":
        form, build = "diagonal", _plan_axis(source, k, multiplier, stored_dtype)
    elif form == "dense":
        build = _plan_dense(source, k, multiplier, stored_dtype, generator)
    else:
        build = _plan_low_rank(source, k, multiplier, stored_dtype, generator)
    if compensation_dtype is not None:
        candidates: tuple[torch.dtype, ...] = (compensation_dtype,)
    else:
        candidates = _candidates(stored_dtype, basis, multiplier)
    found: list[Deformation] = []
    for dtype in candidates:
        locked, tensors, side = build(dtype)
        weight_error = _relative(effective_weight(locked, tensors, side), source)
        function_error = _probe_error(source, stored_dtype, locked, tensors, side, form)
        found.append(
            Deformation(locked, tensors, side, basis, form, k, multiplier, weight_error, function_error, limit)
        )
        if function_error <= COMFORT * limit:
            break
    best = min(d.function_error for d in found)
    chosen = next(d for d in found if d.function_error <= max(COMFORT * limit, 2 * best))
    if not chosen.function_error <= limit:
        raise PlanError(_refusal(chosen, stored_dtype, chosen=compensation_dtype is not None))
    return chosen


Built = tuple[Tensor, dict[str, Tensor], Side]
"""W~ as stored, the compensation's tensors, and its side."""


def _plan_dense(
    source: Tensor, k: int, multiplier: float, stored_dtype: torch.dtype, generator: torch.Generator | None
) -> Callable[[torch.dtype], Built]:
    top = top_k_svd(source, k, generator=generator)
    deformed = source + (multiplier - 1) * (top.u * top.s) @ top.vh
    locked = _store(deformed, stored_dtype, multiplier)
    if source.shape[0] >= source.shape[1]:
        side: Side = "output"
        exact = _solve_left(locked.double(), source)
    else:
        side = "input"
        exact = _solve_left(locked.double().T, source.T).T.contiguous()
    return lambda dtype: (locked, {"compensation": exact.to(dtype)}, side)


def _solve_left(locked: Tensor, source: Tensor) -> Tensor:
    """C = source pinv(locked), so that C locked = source, for a tall locked [m, n] of full column rank."""
    q, r = torch.linalg.qr(locked)
    pivots = r.diagonal().abs()
    if pivots.min() > 1e-13 * pivots.max():
        solved: Tensor = torch.linalg.solve_triangular(r, source, upper=True, left=False) @ q.T
    else:  # a column of zeros in W is one in W~ too
        solved = source @ torch.linalg.pinv(locked, rtol=1e-14)
    return solved


def _plan_low_rank(
    source: Tensor, k: int, multiplier: float, stored_dtype: torch.dtype, generator: torch.Generator | None
) -> Callable[[torch.dtype], Built]:
    top = top_k_svd(source, k, generator=generator)
    output = source.shape[0] <= source.shape[1]
    basis = top.u if output else top.vh.T
    side: Side = "output" if output else "input"

    def build(dtype: torch.dtype) -> Built:
        stored = basis.to(dtype).contiguous()
        scale = torch.full((k,), 1 / multiplier - 1, dtype=dtype, device=source.device)
        wide = stored.double()
        inner = torch.diag(1 / scale.double()) + wide.T @ wide
        tall = source if output else source.T
        deformed = tall - wide @ torch.linalg.solve(inner, wide.T @ tall)  # Woodbury: (I + U D U^T)^-1 W
        locked = _store(deformed if output else deformed.T, stored_dtype, multiplier)
        return locked, {"compensation_basis": stored, "compensation_scale": scale}, side

    return build


def _plan_axis(source: Tensor, k: int, multiplier: float, stored_dtype: torch.dtype) -> Callable[[torch.dtype], Built]:
    rows, columns = (torch.linalg.vector_norm(source, dim=dim) for dim in (1, 0))
    by_row = _energy(rows, k) >= _energy(columns, k)
    norms = rows if by_row else columns
    index = torch.sort(norms, descending=True, stable=True).indices[:k].sort().values
    factors = torch.ones_like(norms).index_fill(0, index, multiplier)
    locked = _store(source * (factors[:, None] if by_row else factors), stored_dtype, multiplier)
    side: Side = "output" if by_row else "input"

    def build(dtype: torch.dtype) -> Built:
        factor = torch.full((k,), 1 / multiplier, dtype=dtype, device=source.device)
        return locked, {"compensation_index": index, "compensation_factor": factor}, side

    return build


def _energy(norms: Tensor, k: int) -> float:
    return norms.square().topk(k).values.sum().item() if k <= len(norms) else -1.0


def _candidates(stored_dtype: torch.dtype, basis: Basis, multiplier: float) -> tuple[torch.dtype, ...]:
    exact = basis == "axis" and math.frexp(multiplier)[0] == 0.5 and multiplier <= 2.0**60
    if exact and stored_dtype != torch.float16:  # x / 2^e is exact where the exponent has 8 bits, not in float16
        return (stored_dtype,)
    return (torch.float64,) if stored_dtype == torch.float64 else (torch.float32, torch.float64)


def _store(deformed: Tensor, dtype: torch.dtype, multiplier: float) -> Tensor:
    locked = deformed.to(dtype).contiguous()
    if torch.isfinite(locked).all():
        return locked
    largest, limit = deformed.abs().max().item(), torch.finfo(dtype).max
    raise PlanError(
        f"`multiplier` must keep W~ inside {_name(dtype)} (at most {limit:.4g}); got {multiplier:g}, which makes an "
        f"entry {largest:.4g}. Use at most about {multiplier * limit / largest / 2:.2g}."
    )


def _probe_error(
    source: Tensor, stored_dtype: torch.dtype, locked: Tensor, tensors: Mapping[str, Tensor], side: Side, form: Form
) -> float:
    """Relative output difference from the original on Gaussian inputs, both in the dtype C is applied in."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(NUM_PROBES, source.shape[1], generator=generator).to(source.device, stored_dtype)
    dtype = compute_dtype(stored_dtype, locked.dtype, tensors[TENSOR_NAMES[form][-1]].dtype, form)
    x = x.to(dtype)
    reference = functional.linear(x, source.to(dtype))
    if side == "output":
        y = compensate(functional.linear(x, locked.to(dtype)), tensors)
    else:
        y = functional.linear(compensate(x, tensors), locked.to(dtype))
    return _relative(y.double(), reference.double())


def _relative(actual: Tensor, expected: Tensor) -> float:
    difference, size = torch.linalg.norm(actual - expected).item(), torch.linalg.norm(expected).item()
    if not math.isfinite(difference):
        return math.inf
    return difference / size if size else math.inf if difference else 0.0


def _refusal(found: Deformation, stored_dtype: torch.dtype, *, chosen: bool) -> str:
    dtype = _name(found.compensation_dtype)
    reached = f"{found.function_error:.1e} with C in {dtype}" + ("" if chosen else ", the widest there is")
    fits = max(1.0, found.multiplier * found.tolerance / found.function_error)
    grows = found.form == "low_rank" or (found.form == "dense" and stored_dtype in (torch.float32, torch.float64))
    options = [f"a multiplier of at most about {fits:.1g}"] if grows and fits >= 2 else []
    options += ["`compensation_dtype` float64"] if chosen and found.compensation_dtype != torch.float64 else []
    options += ["`form` dense"] if found.form == "low_rank" else []
    options += ["`basis` axis"] if found.basis == "svd" else ["a power of two as multiplier"]
    return (
        f"`multiplier` must keep the layer's relative error within {found.tolerance:.1e} for {_name(stored_dtype)} "
        f"weights; got {found.multiplier:g} ({found.basis}, {found.form}), which reaches {reached}. "
        f"Use {' or '.join(options)}."
    )


def _check(weight: Tensor, k: int, multiplier: float, basis: str, form: str) -> None:
    if basis not in ("svd", "axis"):
        raise PlanError(f"`basis` must be svd or axis; got {basis!r}. Use svd for the paper's lock.")
    if form not in ("dense", "low_rank") and (basis, form) != ("axis", "diagonal"):
        raise PlanError(f"`form` must be dense or low_rank; got {form!r}. Use dense for the paper's lock.")
    if weight.ndim != 2:
        raise PlanError(f"`weight` must be a matrix [out, in]; got shape {list(weight.shape)}. Choose a linear layer.")
    limit = max(weight.shape) if basis == "axis" else min(weight.shape)
    if not 1 <= k <= limit:
        raise PlanError(
            f"`rank` must be between 1 and {limit} for a weight of shape {list(weight.shape)}; got {k}. Lower it."
        )
    if not (math.isfinite(multiplier) and multiplier > 1):
        raise PlanError(f"`multiplier` must be a finite number above 1; got {multiplier}. The paper uses 1e4.")
    if not torch.isfinite(weight).all():
        raise PlanError("`weight` must hold finite numbers; got NaN or inf. Check the checkpoint it came from.")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
