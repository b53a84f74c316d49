"""The inject lock on a checkpoint folder: the main paper's Construction 1 (Theorems 6 and 31), streamed.

Each chosen weight W becomes W~ under the same name, and its compensation C is added beside it. ``config.json`` gains a
``quantization_config`` entry that tells `specdef.integrations.transformers` which layers to rebuild before loading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from specdef.architectures.resolve import ResolvedModel
from specdef.checkpoint.edits import NewTensor, ShardEdits, edits_by_shard
from specdef.checkpoint.header import TensorInfo
from specdef.checkpoint.layout import DECLARED, library_of
from specdef.checkpoint.reader import Checkpoint
from specdef.checkpoint.small_files import changed_configs, changed_index
from specdef.core.dtypes import LOCKABLE, TORCH_NAMES
from specdef.errors import PlanError
from specdef.linalg.compensation import TENSOR_NAMES
from specdef.linalg.deform import Deformation, deform
from specdef.linalg.matrix import matrix_shape
from specdef.linalg.multiplier import format_multiplier
from specdef.locks.base import PreparedLock
from specdef.locks.deformed_conv import refuse_conv
from specdef.locks.entry import LayerEntry, quantization_config
from specdef.locks.kinds.inject.options import InjectOptions
from specdef.locks.replaced import held_originals, read_tensor

TORCH_DTYPES = {stored: getattr(torch, TORCH_NAMES[stored]) for stored in (*LOCKABLE, "F64")}
"""safetensors' name -> torch dtype, of what an inject lock computes in."""


@dataclass(frozen=True)
class LayerPlan:
    """One matrix to lock: its figures here, its new tensors in a file of the spool folder."""

    module: str
    entry: LayerEntry
    function_error: float
    num_parameters: int
    num_extra: int
    spool: Path


@dataclass(frozen=True)
class InjectPlan:
    """An inject lock, ready to apply.

    Attributes:
        options: what was asked.
        layers: the matrices.
    """

    options: InjectOptions
    layers: tuple[LayerPlan, ...]


def plan_inject(
    checkpoint: Checkpoint, model: ResolvedModel, options: InjectOptions, names: Sequence[str], spool: Path
) -> InjectPlan:
    """Deform every chosen matrix and measure its error; new tensors wait in `spool` until they are written.

    Args:
        checkpoint: the source.
        model: its resolved architecture.
        options: what was asked.
        names: weight tensors to lock, from `choose_matrices`.
        spool: an existing scratch folder.

    Raises:
        PlanError: k too large, or no dtype of C keeps the function; nothing of the output has been written by then.
    """
    plans = []
    where = checkpoint.locate()
    for number, name in enumerate(names):
        shard, tensor = where[name]
        deformation = _deform(checkpoint, shard, tensor, model.architecture.transposed, options)
        path = spool / f"{number}.safetensors"
        weight = (deformation.weight.T if model.architecture.transposed else deformation.weight).reshape(tensor.shape)
        save_file({"weight": weight.contiguous(), **deformation.tensors}, path)
        plans.append(
            LayerPlan(
                module=name.removesuffix(".weight"),
                entry=LayerEntry.of(deformation, transposed=model.architecture.transposed),
                function_error=deformation.function_error,
                num_parameters=deformation.weight.numel(),
                num_extra=deformation.num_extra_parameters,
                spool=path,
            )
        )
    return InjectPlan(options, tuple(plans))


def _deform(
    checkpoint: Checkpoint, shard: str, tensor: TensorInfo, transposed: bool, options: InjectOptions
) -> Deformation:
    if tensor.dtype not in TORCH_DTYPES:
        raise PlanError(
            f"Tensor {tensor.name} of file {shard} is stored as {tensor.dtype}; a lock needs F32, BF16 or F16. "
            "Lock the model before quantising it."
        )
    weight = read_tensor(checkpoint, shard, tensor)
    weight = weight.reshape(matrix_shape(weight.shape))
    if not weight.isfinite().all():
        raise PlanError(
            f"Weights must be finite; tensor {tensor.name} of file {shard} holds NaN or infinity. Repair it."
        )
    try:
        return deform(
            weight.T if transposed else weight,
            options.rank,
            options.multiplier,
            basis=options.basis,
            form=options.form,
        )
    except PlanError as error:
        raise PlanError(f"Tensor {tensor.name} of file {shard}: {error}") from error


def inject_edits(checkpoint: Checkpoint, plan: InjectPlan) -> dict[str, ShardEdits]:
    """The plan as edits for `checkpoint.writer.write_shards`: W replaced, C added to the same shard."""
    replaced = {f"{layer.module}.weight": _spooled(layer.spool, "weight") for layer in plan.layers}
    added = {
        f"{layer.module}.weight": {
            f"{layer.module}.{name}": _spooled(layer.spool, name) for name in TENSOR_NAMES[layer.entry.form]
        }
        for layer in plan.layers
    }
    return edits_by_shard(checkpoint, replaced=replaced, added=added)


def _spooled(path: Path, name: str) -> NewTensor:
    with safe_open(path, "pt") as file:
        like = file.get_slice(name)
        shape, dtype = tuple(like.get_shape()), like.get_dtype()

    def data() -> bytes:
        with safe_open(path, "pt") as file:
            tensor = file.get_tensor(name)
        return bytes(tensor.contiguous().view(torch.uint8).numpy().data)

    return NewTensor(dtype, shape, data)


def locked_config(checkpoint: Checkpoint, plan: InjectPlan) -> dict[str, Any]:
    """The configuration with the plan's layers declared in it."""
    declared = quantization_config({layer.module: layer.entry for layer in plan.layers})
    return {**checkpoint.config, DECLARED: declared}


def changed_files(checkpoint: Checkpoint, plan: InjectPlan, edits: Mapping[str, ShardEdits]) -> dict[str, bytes]:
    """New contents of config.json, of a pipeline the U-Net's, and for a sharded checkpoint of its index."""
    config = locked_config(checkpoint, plan)
    return {**changed_configs(checkpoint, config), **changed_index(checkpoint, edits)}


def describe(plan: InjectPlan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Strength and exactness, for the manifest and the report."""
    dtypes = sorted({layer.entry.dtype for layer in plan.layers})
    stored = sorted({layer.entry.weight_dtype for layer in plan.layers})
    num_own = sum(layer.num_parameters for layer in plan.layers)
    strength = {
        "multiplier": format_multiplier(plan.options.multiplier),
        "top_k": plan.options.rank,
        "basis": plan.options.basis,
        "form": sorted({layer.entry.form for layer in plan.layers})[0],
        "matrices": [layer.module for layer in plan.layers],
        "compensation_dtype": ", ".join(dtypes),
        "extra_ratio": round(sum(layer.num_extra for layer in plan.layers) / num_own, 6),
    }
    worst = max(layer.function_error for layer in plan.layers)
    exactness = {
        "bit_exact": False,
        "closeness": f"within {worst:.1e} relative per locked layer",
        "function_error": worst,
        "stored_dtypes": stored,
        "exact_in": stored,
        "not_claimed_in": [],
        "kv_cache": "activations outside the locked layers keep their range, so any cache the model allows works",
        "quantisation": "quantising the locked layers destroys the function; loading needs `import specdef`",
    }
    return strength, exactness


def prepare(
    checkpoint: Checkpoint, model: ResolvedModel, options: InjectOptions, names: Sequence[str], spool: Path
) -> PreparedLock:
    """The planned lock as edits, manifest entries and key.

    Args:
        checkpoint: the source.
        model: its resolved architecture.
        options: what was asked.
        names: weight tensors to lock.
        spool: an existing scratch folder.
    """
    from specdef.models.empty import found_modules

    for name, module in found_modules(checkpoint.folder, [name.removesuffix(".weight") for name in names]).items():
        if isinstance(module, nn.Conv2d):
            refuse_conv(name, module)
    plan = plan_inject(checkpoint, model, options, names, spool)
    strength, exactness = describe(plan)
    edits = inject_edits(checkpoint, plan)
    return PreparedLock(
        strength=strength,
        exactness=exactness,
        checked=("each locked layer's output on Gaussian inputs is within its dtype's tolerance of the original's",),
        num_values=sum(layer.num_parameters for layer in plan.layers),
        edits=edits,
        changed_files=changed_files(checkpoint, plan, edits),
        blobs=held_originals(checkpoint, [f"{layer.module}.weight" for layer in plan.layers], edits),
        remarks=(
            f"Compensation adds {strength['extra_ratio']:.1%} of the locked matrices' own parameters.",
            f"Runs in {library_of(checkpoint.folder)} after `import specdef` only; without it the folder is refused. A "
            "runtime that reads weights by name leaves the compensation out and computes nonsense.",
        ),
    )
