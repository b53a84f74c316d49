"""What a locked layer stores beside its weight: the compensation C, how it is applied, and what remains of the lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from specdef.linalg.svd import top_k_svd

Basis = Literal["svd", "axis"]
Form = Literal["dense", "low_rank", "diagonal"]
Side = Literal["output", "input"]

TENSOR_NAMES: Mapping[Form, tuple[str, ...]] = {
    "dense": ("compensation",),
    "low_rank": ("compensation_basis", "compensation_scale"),
    "diagonal": ("compensation_index", "compensation_factor"),
}
"""State-dict names of the tensors each form stores."""


def compute_dtype(x: torch.dtype, weight: torch.dtype, compensation: torch.dtype, form: Form) -> torch.dtype:
    """The dtype a locked layer's products run in: the widest of the three, and for the svd basis wider than W~.

    W~ x is about alpha times larger than what remains of it after C, so each of its roundings is amplified by alpha.
    A product in the dtype W~ is stored in would lose more there than storing W~ and C in it does (20 times more for
    float32 at k = 25), so float32 weights are multiplied in float64. Scaling rows or columns amplifies nothing.

    Args:
        x: dtype of the activations.
        weight: dtype of W~.
        compensation: dtype of C.
        form: how C is stored; "diagonal" is the axis basis.

    Example:
        >>> compute_dtype(torch.bfloat16, torch.bfloat16, torch.float32, "dense")
        torch.float32
        >>> compute_dtype(torch.float32, torch.float32, torch.float32, "dense")
        torch.float64
    """
    widest = torch.promote_types(torch.promote_types(x, weight), compensation)
    return torch.float64 if form != "diagonal" and weight == torch.float32 else widest


def compensate(x: Float[Tensor, "*batch n"], tensors: Mapping[str, Tensor]) -> Float[Tensor, "*batch n"]:
    """Apply C to the last axis of x, in the dtype of x.

    Args:
        x: activations [..., n].
        tensors: one form's tensors, as stored.

    Returns:
        C x for every vector of the batch [..., n].

    Example:
        >>> c = {"compensation_index": torch.tensor([1]), "compensation_factor": torch.tensor([0.5])}
        >>> compensate(torch.tensor([3.0, 4.0]), c).tolist()
        [3.0, 2.0]
    """
    if "compensation" in tensors:
        return functional.linear(x, tensors["compensation"].to(x.dtype))
    if "compensation_basis" in tensors:
        basis, scale = tensors["compensation_basis"].to(x.dtype), tensors["compensation_scale"].to(x.dtype)
        return x + functional.linear((x @ basis) * scale, basis)
    factors = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)
    return x * factors.index_copy(0, tensors["compensation_index"], tensors["compensation_factor"].to(x.dtype))


def effective_weight(
    locked: Float[Tensor, "out in"], tensors: Mapping[str, Tensor], side: Side
) -> Float[Tensor, "out in"]:
    """C W~ or W~ C in float64: the weight the locked layer computes with.

    Args:
        locked: W~ [out, in].
        tensors: the compensation's tensors.
        side: where C acts.

    Returns:
        float64 matrix [out, in].
    """
    if side == "output":
        return compensate(locked.double().T, tensors).T
    transposed = {name: t.T if name == "compensation" else t for name, t in tensors.items()}  # C acts on rows: C^T
    return compensate(locked.double(), transposed)


@dataclass(frozen=True)
class LockMeasure:
    """What a stored lock does, recomputed from its tensors alone.

    Attributes:
        sigma_1: spectral norm of W~.
        stored: k leading singular values of W~.
        effective: k leading singular values of C W~ (or W~ C), float64.
        ratio: stored / effective, about the multiplier for each i <= k of an svd lock.
    """

    sigma_1: float
    stored: Float[Tensor, " k"]
    effective: Float[Tensor, " k"]
    ratio: Float[Tensor, " k"]


def measure_lock(locked: Float[Tensor, "out in"], tensors: Mapping[str, Tensor], side: Side, k: int) -> LockMeasure:
    """Recompute a lock's strength from the weight and compensation as stored.

    Args:
        locked: W~ [out, in].
        tensors: the compensation's tensors.
        side: where C acts.
        k: number of leading singular values.

    Returns:
        Singular values before and after compensation and their ratio.

    Raises:
        SpecdefError: k out of range, or NaN or inf in a tensor.

    Example:
        >>> from specdef.linalg.deform import deform
        >>> d = deform(torch.diag(torch.arange(1.0, 9.0)), 2, 1024.0)
        >>> measure_lock(d.weight, d.tensors, d.side, 2).ratio.round().tolist()
        [1024.0, 1024.0]
    """
    stored = top_k_svd(locked, k).s
    effective = top_k_svd(effective_weight(locked, tensors, side), k).s
    return LockMeasure(stored[0].item(), stored, effective, stored / effective)
