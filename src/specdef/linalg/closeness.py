"""How close a locked layer stays to the original, and how close it must: over the whole output, and output by output.

The error over the whole output is the figure a manifest claims. One huge row of W hides every other row in it, so a
lock is also held to the tolerance in each output alone, on inputs with massive channels and, if given, on real ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from specdef.errors import PlanError
from specdef.linalg.compensation import TENSOR_NAMES, Form, Side, compensate, compute_dtype

NUM_PROBES = 64
MASSIVE = 1000.0
"""Size of a massive channel beside the others. Residual streams hold a few, 100 to 10,000 times the median; which ones
they are does not depend on the token (Sun et al. 2024, Massive Activations in Large Language Models)."""
NUM_MASSIVE = 4
SPREAD = 4.0
"""An output alone may err by so many tolerances. Where a few channels make up the input, the errors of a hundred
outputs that meet the tolerance together spread that far by chance; the divergence they cause stays of its order."""


@dataclass(frozen=True)
class OutputError:
    """The worst output of a locked layer.

    Attributes:
        value: its relative error; infinite where it is no number.
        output: its row in W.
        inputs: the kind of inputs it was found on.
    """

    value: float
    output: int
    inputs: str


@dataclass(frozen=True)
class Closeness:
    """What rounding costs one way of storing a lock, from its tensors as stored.

    Attributes:
        whole: relative error of the whole output on Gaussian inputs.
        worst: the output with the largest error of its own.
    """

    whole: float
    worst: OutputError

    @property
    def least_tolerance(self) -> float:
        """The smallest tolerance this meets, as a whole and (with `SPREAD`) output by output."""
        return max(self.whole, self.worst.value / SPREAD)


@dataclass(frozen=True)
class StoredLock:
    """A locked layer's numbers: W~, the tensors of C, the side C acts on and its form."""

    weight: Float[Tensor, "out in"]
    tensors: Mapping[str, Tensor]
    side: Side
    form: Form

    @property
    def dtype(self) -> torch.dtype:
        """The dtype C is stored in."""
        return self.tensors[TENSOR_NAMES[self.form][-1]].dtype

    def apply(self, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        """The layer's output without a bias, in the dtype of x."""
        if self.side == "output":
            return compensate(functional.linear(x, self.weight.to(x.dtype)), self.tensors)
        return functional.linear(compensate(x, self.tensors), self.weight.to(x.dtype))


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
        f"`weight` must be stored in float64, float32, bfloat16 or float16; got {str(stored_dtype)[6:]}. "
        "Lock the model before quantising it."
    )


def probe_inputs(
    source: Float[Tensor, "out in"],
    stored_dtype: torch.dtype,
    activations: Float[Tensor, "tokens in"] | None = None,
) -> dict[str, Float[Tensor, "batch in"]]:
    """The inputs a lock is tried on, by name: a function of the weight alone, and real activations where given.

    Beside Gaussian ones: massive channels where W is largest and anywhere; and inputs as large as the columns of W are
    small, so that every column counts alike (trained weights are small where their input is massive, and an error of an
    ordinary size is large beside what is left). Columns are measured with every row at norm 1, and count as at least
    the dtype's tolerance times the median one.

    Args:
        source: W [out, in].
        stored_dtype: dtype of the checkpoint's weight.
        activations: inputs of this layer, recorded from the model on text.

    Raises:
        PlanError: the activations do not fit the weight, or are not finite.
    """
    width = source.shape[1]
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(NUM_PROBES, width, generator=generator).to(source.device)
    columns = _sizes(source / _sizes(source, 1, stored_dtype)[:, None], 0, stored_dtype)
    few = max(1, min(NUM_MASSIVE, width // 16))
    anywhere = torch.randperm(width, generator=generator)[:few].to(source.device)
    massive = torch.ones_like(columns)
    inputs = {
        "Gaussian inputs": gaussian,
        "massive channels at large columns": gaussian * massive.index_fill(0, columns.topk(few).indices, MASSIVE),
        "massive channels anywhere": gaussian * massive.index_fill(0, anywhere, MASSIVE),
        "inputs large where columns are small": gaussian * (columns.median() / columns),
    }
    if activations is not None:
        if activations.ndim != 2 or activations.shape[1] != width or not len(activations):
            raise PlanError(
                f"`activations` must be inputs of this layer [tokens, {width}]; got shape {list(activations.shape)}. "
                "Record them at this layer."
            )
        if not torch.isfinite(activations).all():
            raise PlanError("`activations` must be finite; got NaN or infinity. Record them again.")
        inputs["the given activations"] = activations.to(source.device)
    return inputs


def compare(
    source: Float[Tensor, "out in"],
    stored_dtype: torch.dtype,
    locked: StoredLock,
    inputs: Mapping[str, Tensor],
) -> Closeness:
    """Compare a locked layer with the original, both in the dtype C is applied in, so that inference's rounding counts.

    Math: for output i and a set of inputs X, e_i = ||y_i - y'_i|| / s_i with s_i = max(||y_i||, g |w_i|), where g is
    the median over outputs of ||y_i|| / |w_i|. Each output is weighed by its own size, because scaling an output by a
    factor and what reads it by the inverse changes neither the model nor e_i. The second term is what a row of that
    norm gives on X as a rule: an output that is small because its terms happen to cancel is measured against it.
    |w_i| counts as at least the dtype's tolerance times the median row. The error that lets through, tolerance^2 of a
    median output, is for float32 the unit roundoff.

    Args:
        source: W [out, in], float64.
        stored_dtype: dtype of the checkpoint's weight; inputs are rounded to it.
        locked: the layer as stored.
        inputs: by name, from `probe_inputs`.
    """
    rows, alive = _sizes(source, 1, stored_dtype), source.any(dim=1)
    dtype = compute_dtype(stored_dtype, locked.weight.dtype, locked.dtype, locked.form)
    original, whole, worst = source.to(dtype), math.nan, OutputError(-1.0, 0, "")
    for name, x in inputs.items():
        x = x.to(stored_dtype).to(dtype)
        expected = functional.linear(x, original).double()
        found = locked.apply(x).double()
        if math.isnan(whole):
            whole = relative_error(found, expected)
        size = torch.linalg.vector_norm(expected, dim=0)
        gain = (size / rows)[alive].median()
        missed = torch.linalg.vector_norm(found - expected, dim=0)
        errors = (missed / torch.maximum(size, gain * rows)).where(missed != 0, 0.0)
        errors = errors.where(torch.isfinite(errors), math.inf)
        if errors.max() > worst.value:
            worst = OutputError(errors.max().item(), int(errors.argmax()), name)
    return Closeness(whole, worst)


def _sizes(source: Tensor, dim: int, stored_dtype: torch.dtype) -> Tensor:
    """Norms of the rows (dim 1) or columns (0), each at least the dtype's tolerance times the median of the living."""
    norms: Tensor = torch.linalg.vector_norm(source, dim=dim)
    return norms.clamp(min=default_tolerance(stored_dtype) * norms[norms > 0].median().item())


def relative_error(actual: Float[Tensor, "*shape"], expected: Float[Tensor, "*shape"]) -> float:
    """||actual - expected||_F / ||expected||_F; infinite for what is no number."""
    difference, size = torch.linalg.norm(actual - expected).item(), torch.linalg.norm(expected).item()
    if not math.isfinite(difference):
        return math.inf
    return difference / size if size else math.inf if difference else 0.0
