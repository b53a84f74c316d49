"""Layers with a compensation beside them, as config.json lists them, checked against the tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from specdef.checkpoint.header import TensorInfo
from specdef.checkpoint.reader import Checkpoint
from specdef.core.dtypes import STORED_NAMES
from specdef.errors import SpecdefError
from specdef.linalg.compensation import TENSOR_NAMES
from specdef.locks.base import is_added
from specdef.locks.entry import FORMAT_VERSION, QUANT_METHOD, LayerEntry
from specdef.locks.kinds.inject.plan import load_tensor, locked_modules
from specdef.locks.recognise import resolve_locked


def compensated_modules(checkpoint: Checkpoint) -> dict[str, LayerEntry]:
    """The layers of an inject lock, from config.json, checked against the tensors.

    Raises:
        SpecdefError: there are none, or config.json and the tensors contradict each other.
    """
    quantization = checkpoint.config.get("quantization_config")
    if not isinstance(quantization, dict) or quantization.get("quant_method") != QUANT_METHOD:
        raise SpecdefError(
            f"`model` must hold layers with a compensation beside them; {checkpoint.folder} has none. "
            "Use rebalance for channels that are scaled."
        )
    if quantization.get("factored"):
        raise SpecdefError(
            f"`model` must hold layers as the lock left them; those of {checkpoint.folder} were replaced by "
            "inject-layers. Start from the published folder."
        )
    if quantization.get("version") != FORMAT_VERSION:
        raise SpecdefError(
            f"`quantization_config.version` must be {FORMAT_VERSION}; got {quantization.get('version')!r}. "
            "Use the specdef version that locked it."
        )
    modules = locked_modules(checkpoint)
    where = checkpoint.locate()
    listed = {f"{module}.{part}" for module, entry in modules.items() for part in TENSOR_NAMES[entry.form]}
    strangers = sorted(name for name in where if is_added(name) and name not in listed)
    if strangers or not modules:
        found = f"tensor {strangers[0]}, which it does not list" if strangers else "none"
        raise SpecdefError(f"`quantization_config.modules` in config.json must list every locked layer; got {found}.")
    transposed = resolve_locked(checkpoint).architecture.transposed
    for module, entry in modules.items():
        _check_layer(where, module, entry, transposed)
    return modules


def _check_layer(where: Mapping[str, tuple[str, TensorInfo]], module: str, entry: LayerEntry, transposed: bool) -> None:
    missing = [part for part in ("weight", *TENSOR_NAMES[entry.form]) if f"{module}.{part}" not in where]
    if missing:
        raise SpecdefError(f"Tensor {module}.{missing[0]} must exist; the checkpoint does not hold it. Get it whole.")
    weight = where[f"{module}.weight"][1]
    if len(weight.shape) != 2 or entry.transposed != transposed:
        raise SpecdefError(
            f"`quantization_config.modules[{module!r}]` must describe a matrix of this family; "
            f"its weight has shape {list(weight.shape)}, transposed is {entry.transposed}. Get the folder whole."
        )
    out, inner = reversed(weight.shape) if transposed else weight.shape
    side, rank = out if entry.side == "output" else inner, entry.rank
    shapes: dict[str, list[tuple[int, ...]]] = {
        "dense": [(side, side)],
        "low_rank": [(side, rank), (rank,)],
        "diagonal": [(rank,), (rank,)],
    }
    for part, shape in zip(TENSOR_NAMES[entry.form], shapes[entry.form], strict=True):
        found = where[f"{module}.{part}"][1]
        wanted = entry.dtype if part != "compensation_index" else "int64"
        if found.shape != shape or found.dtype != STORED_NAMES[wanted]:
            raise SpecdefError(
                f"Tensor {found.name} must be {wanted} of shape {list(shape)}, as config.json says; it is "
                f"{found.dtype} of shape {list(found.shape)}. Get the folder whole."
            )
    if weight.dtype != STORED_NAMES[entry.weight_dtype]:
        raise SpecdefError(
            f"Tensor {weight.name} must be {entry.weight_dtype}, as config.json says; it is {weight.dtype}. "
            "Get the folder whole."
        )


def stored_layer(
    checkpoint: Checkpoint, module: str, entry: LayerEntry
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """W~ as [out, in] and the compensation's tensors, as stored."""
    where = checkpoint.locate()
    names = ("weight", *TENSOR_NAMES[entry.form])
    tensors = {name: load_tensor(checkpoint, *where[f"{module}.{name}"]) for name in names}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise SpecdefError(f"Weights must be finite; tensor {module}.{name} holds NaN or infinity.")
    weight = tensors.pop("weight")
    return (weight.T if entry.transposed else weight), tensors


def relative_difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """||found - wanted|| / ||wanted||, in float64."""
    return float((found.double() - wanted).norm() / wanted.norm().clamp_min(torch.finfo(torch.float64).tiny))
