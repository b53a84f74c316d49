"""Layers with a compensation beside them, as config.json lists them, checked against the tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from specdef.architectures.quantization import declared_method
from specdef.checkpoint.header import TensorInfo
from specdef.checkpoint.reader import Checkpoint
from specdef.core.dtypes import TORCH_NAMES
from specdef.errors import SpecdefError
from specdef.linalg.compensation import TENSOR_NAMES
from specdef.linalg.matrix import matrix_shape
from specdef.locks.base import without_added
from specdef.locks.entry import FORMAT_VERSION, QUANT_METHOD, LayerEntry
from specdef.locks.kinds.inject.check import load_tensor, locked_modules
from specdef.locks.recognise import resolve_locked


def compensated_modules(checkpoint: Checkpoint) -> dict[str, LayerEntry]:
    """The layers of an inject lock, from config.json, checked against the tensors.

    Raises:
        SpecdefError: there are none, or config.json and the tensors contradict each other.
    """
    quantization = checkpoint.config.get("quantization_config")
    if not isinstance(quantization, dict) or declared_method(quantization) != QUANT_METHOD:
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
    strangers = sorted(where.keys() - set(without_added(where)) - listed)
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
    if not matrix_shape(weight.shape) or entry.transposed != transposed:
        raise SpecdefError(
            f"`quantization_config.modules[{module!r}]` must describe a matrix of this family; "
            f"its weight has shape {list(weight.shape)}, transposed is {entry.transposed}. Get the folder whole."
        )
    (name, (dtype, _)), *beside = entry.tensors(module, weight.shape).items()
    for part, (stored, shape) in beside:
        found = where[part][1]
        if (found.dtype, found.shape) != (stored, shape):
            raise SpecdefError(
                f"Tensor {part} must be {TORCH_NAMES[stored]} of shape {list(shape)}, as config.json says; it is "
                f"{found.dtype} of shape {list(found.shape)}. Get the folder whole."
            )
    if weight.dtype != dtype:
        raise SpecdefError(
            f"Tensor {name} must be {TORCH_NAMES[dtype]}, as config.json says; it is {weight.dtype}. "
            "Get the folder whole."
        )


def stored_layer(
    checkpoint: Checkpoint, module: str, entry: LayerEntry
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """W~ as a matrix [out, in] and the compensation's tensors, as stored."""
    where = checkpoint.locate()
    names = ("weight", *TENSOR_NAMES[entry.form])
    tensors = {name: load_tensor(checkpoint, *where[f"{module}.{name}"]) for name in names}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise SpecdefError(f"Weights must be finite; tensor {module}.{name} holds NaN or infinity.")
    weight = tensors.pop("weight")
    return (weight.T if entry.transposed else weight.reshape(matrix_shape(weight.shape))), tensors


def relative_difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """||found - wanted|| / ||wanted||, in float64."""
    return float((found.double() - wanted).norm() / wanted.norm().clamp_min(torch.finfo(torch.float64).tiny))
