"""Spectral deformation of one weight and its compensation: the paper's Construction 1, made exact in stored numbers.

Rounding W~, whose entries grow with the multiplier, adds noise of about multiplier * eps in every direction. The dense
compensation is therefore solved against the rounded W~; the rank-k one cannot undo noise outside its span. Every
output's error is measured, the dtype of C is chosen by it, and a deformation that misses the tolerance is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from specdef.errors import PlanError
from specdef.linalg import constructions
from specdef.linalg.closeness import SPREAD, Closeness, compare, default_tolerance, probe_inputs, relative_error
from specdef.linalg.compensation import TENSOR_NAMES, Basis, Form, Side, effective_weight
from specdef.linalg.multiplier import format_multiplier

COMFORT = 1 / 16
"""Share of the tolerance a narrow C may use up; above it a wider C is taken where that halves the error."""

MAX_BLUR = 0.02
"""Relative; how far rounding 1 / alpha - 1, which the rank-k C stores, may move the multiplier."""


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
        closeness: how far its output is from the original layer's.
        tolerance: what that was held to.
    """

    weight: Float[Tensor, "out in"]
    tensors: Mapping[str, Tensor] = field(repr=False)
    side: Side
    basis: Basis
    form: Form
    rank: int
    multiplier: float
    weight_error: float
    closeness: Closeness
    tolerance: float

    @property
    def function_error(self) -> float:
        """Relative error of the whole output on Gaussian inputs, with what rounding during inference adds."""
        return self.closeness.whole

    @property
    def compensation_dtype(self) -> torch.dtype:
        """The dtype C is stored in."""
        return self.tensors[TENSOR_NAMES[self.form][-1]].dtype

    @property
    def num_extra_parameters(self) -> int:
        """Numbers stored beside W~, indices included."""
        return sum(tensor.numel() for tensor in self.tensors.values())


def deform(
    weight: Float[Tensor, "out in"],
    rank: int,
    multiplier: float,
    *,
    basis: Basis = "svd",
    form: Form = "dense",
    stored_dtype: torch.dtype | None = None,
    compensation_dtype: torch.dtype | None = None,
    tolerance: float | None = None,
    activations: Float[Tensor, "tokens in"] | None = None,
    generator: torch.Generator | None = None,
) -> Deformation:
    """Scale the k = `rank` leading directions of a weight by a multiplier and compensate.

    Math (Construction 1, Theorem 6): W = U diag(s) V^T, s~_i = alpha s_i for i <= k, W~ = U diag(s~) V^T.
    svd, dense: W~ is rounded first and C = W pinv(W~) solved against the result in float64, on the output side if
    out >= in and on the input side otherwise (zero rows and columns uncounted), where pinv(W~) is a true one-sided
    inverse. The paper's I - U U^T term for a tall W is left out: it acts on nothing W~ can produce but rounding noise,
    which it would pass on unscaled.
    svd, low_rank: on the shorter side, C = I + U diag(1/alpha - 1) U^T with U rounded first and W~ = C^-1 W by the
    Woodbury identity, so that rounding U costs nothing.
    axis: the k rows or columns of largest norm (whichever holds more) are multiplied, C divides them; one rounding of
    those entries if alpha is not a power of two, none if it is. Stored as indices and factors whatever `form` says.

    Args:
        weight: W [out, in], floating point.
        rank: k, number of directions, at most as many as W has (axis: at most the rows or columns that are not zero).
        multiplier: alpha, finite and above 1.
        basis: "svd" or "axis".
        form: how to store C for the svd basis, "dense" or "low_rank".
        stored_dtype: dtype of W~; None keeps the weight's.
        compensation_dtype: dtype of C; None takes the narrowest with an error under a sixteenth of the tolerance, no
            output beyond the tolerance, or each within twice of the best there is.
        tolerance: largest error of the whole output; an output alone may err by `closeness.SPREAD` times as much. None
            takes ``default_tolerance(stored_dtype)``; math.inf refuses no error.
        activations: inputs of this layer recorded from the model, to be tried beside the inputs that are made up.
        generator: for the SVD's start block, on the weight's device; None is deterministic.

    Returns:
        The deformed weight, its compensation and the errors measured.

    Raises:
        PlanError: an argument is out of range, W has fewer than k directions, W~ leaves the range of its dtype, or no
            allowed dtype of C meets the tolerance; the message says what would.

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
    _check(weight, rank, multiplier, basis, form)
    source = weight.double()
    request = constructions.Request(source, weight.dtype, rank, multiplier, stored_dtype, generator)
    if basis == "axis":
        build = constructions.axis(request)
    else:
        build = constructions.dense(request) if form == "dense" else constructions.low_rank(request)
    inputs = probe_inputs(source, stored_dtype, activations)
    candidates = (
        _candidates(stored_dtype, basis, form, multiplier) if compensation_dtype is None else (compensation_dtype,)
    )
    found: list[Deformation] = []
    for dtype in candidates:
        lock = build(dtype)
        weight_error = relative_error(effective_weight(lock.weight, lock.tensors, lock.side), source)
        close = compare(source, stored_dtype, lock, inputs)
        found.append(
            Deformation(
                weight=lock.weight,
                tensors=lock.tensors,
                side=lock.side,
                basis=basis,
                form=lock.form,
                rank=rank,
                multiplier=multiplier,
                weight_error=weight_error,
                closeness=close,
                tolerance=limit,
            )
        )
        if close.whole <= COMFORT * limit and close.worst.value <= limit:
            break
    sound = [d for d in found if d.closeness.least_tolerance <= limit]
    if not sound:
        closest = min(found, key=lambda d: d.closeness.least_tolerance)
        raise PlanError(_refusal(closest, stored_dtype, chosen=compensation_dtype is not None))
    return next(d for d in sound if _near_best(d, sound))


def _near_best(found: Deformation, sound: list[Deformation]) -> bool:
    """Whether this one is good enough as a whole and output by output, or no other is better by more than chance."""
    whole = min(d.closeness.whole for d in sound)
    worst = min(d.closeness.worst.value for d in sound)
    close, limit = found.closeness, found.tolerance
    return close.whole <= max(COMFORT * limit, 2 * whole) and close.worst.value <= max(limit, SPREAD * worst)


def _candidates(stored_dtype: torch.dtype, basis: Basis, form: Form, multiplier: float) -> tuple[torch.dtype, ...]:
    exact = basis == "axis" and math.frexp(multiplier)[0] == 0.5 and multiplier <= 2.0**60
    if exact and stored_dtype != torch.float16:  # x / 2^e is exact where the exponent has 8 bits, not in float16
        return (stored_dtype,)
    blurred = form == "low_rank" and multiplier * torch.finfo(torch.float32).eps > MAX_BLUR
    return (torch.float64,) if stored_dtype == torch.float64 or blurred else (torch.float32, torch.float64)


def _refusal(found: Deformation, stored_dtype: torch.dtype, *, chosen: bool) -> str:
    close, worst, dtype = found.closeness, found.closeness.worst, _name(found.compensation_dtype)
    as_a_whole = close.whole > found.tolerance
    reached = f"{close.whole:.1e}" if as_a_whole else f"{worst.value:.1e} in output {worst.output} on {worst.inputs}"
    reached += f" with C in {dtype}" + ("" if chosen else ", the widest there is")
    limit = found.tolerance if as_a_whole else SPREAD * found.tolerance
    fits = max(1.0, found.multiplier * found.tolerance / close.least_tolerance)
    grows = found.form == "low_rank" or (found.form == "dense" and stored_dtype in (torch.float32, torch.float64))
    options = [f"a multiplier of at most about {fits:.1g}"] if grows and fits >= 2 else []
    options += ["`compensation_dtype` float64"] if chosen and found.compensation_dtype != torch.float64 else []
    options += ["`form` dense"] if found.form == "low_rank" else []
    options += ["`basis` axis"] if found.basis == "svd" else ["a power of two as multiplier"]
    return (
        f"`multiplier` must keep the relative error of {'the layer' if as_a_whole else 'every output'} within "
        f"{limit:.1e} for {_name(stored_dtype)} weights; got {format_multiplier(found.multiplier)} ({found.basis}, "
        f"{found.form}), which reaches {reached}. Use {' or '.join(options)}."
    )


def _check(weight: Tensor, rank: int, multiplier: float, basis: str, form: str) -> None:
    if basis not in ("svd", "axis"):
        raise PlanError(f"`basis` must be svd or axis; got {basis!r}. Use svd for the paper's lock.")
    if form not in ("dense", "low_rank") and (basis, form) != ("axis", "diagonal"):
        raise PlanError(f"`form` must be dense or low_rank; got {form!r}. Use dense for the paper's lock.")
    if weight.ndim != 2:
        raise PlanError(f"`weight` must be a matrix [out, in]; got shape {list(weight.shape)}. Choose a linear layer.")
    limit = max(weight.shape) if basis == "axis" else min(weight.shape)
    if not 1 <= rank <= limit:
        raise PlanError(
            f"`rank` must be between 1 and {limit} for a weight of shape {list(weight.shape)}; got {rank}. Lower it."
        )
    if not (math.isfinite(multiplier) and multiplier > 1):
        raise PlanError(f"`multiplier` must be a finite number above 1; got {multiplier}. The paper uses 1e4.")
    if not torch.isfinite(weight).all():
        raise PlanError("`weight` must hold finite numbers; got NaN or inf. Check the checkpoint it came from.")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
