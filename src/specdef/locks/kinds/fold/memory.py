"""The fold lock of a model in memory: the same channels and factors as of the same weights in a folder.

A pair whose tensors transformers names otherwise in memory than in files (GPT-NeoX's head) is withheld.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from specdef.architectures.resolve import resolve
from specdef.checkpoint.header import ShardHeader, TensorInfo
from specdef.checkpoint.reader import Checkpoint
from specdef.core.dtypes import BITS, STORED_NAMES
from specdef.errors import PlanError
from specdef.linalg.exponent import Stored
from specdef.locks.base import ModuleKey, ModuleLock
from specdef.locks.edits import shard_edits
from specdef.locks.kinds.fold.options import FoldOptions
from specdef.locks.kinds.fold.plan import plan_fold

SHARD = "memory"


@dataclass(frozen=True)
class FoldReport:
    """What the fold lock did to a model in memory.

    Attributes:
        exponent: log2 of the multiplier.
        pairs: pair id -> channels scaled.
        left_out: pair id -> why it is not locked.
    """

    exponent: int
    pairs: Mapping[str, tuple[int, ...]]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class _Memory(Checkpoint):
    """A model's parameters and buffers, read as if they were a checkpoint's tensors."""

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def map_tensor(self, shard: str, tensor: TensorInfo) -> Stored:
        """The stored numbers, copied from the device they are on."""
        return _stored(self.tensors[tensor.name])


def lock_module(name: str, module: nn.Module, options: FoldOptions) -> ModuleLock:
    """Scale channels of a transformers model in place.

    Args:
        name: of this kind of lock.
        module: a transformers model whose parameters bear the names of its checkpoint's tensors.
        options: checked.

    Raises:
        PlanError: no transformers model, or the lock cannot be applied exactly.
        ArchitectureError: its family has no map, or its parameters are named otherwise than its map's tensors.
    """
    config = getattr(module, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        raise PlanError(
            f"`module` must be a transformers model for lock {name}, which reads its config; got "
            f"{type(module).__name__}. Name its layers with `targets` instead."
        )
    entries = dict(config.to_dict())
    entries["architectures"] = [type(module).__name__]
    checkpoint = _Memory(Path(type(module).__name__), entries, *_layout(module), tensors=_own_tensors(module))
    plan = plan_fold(checkpoint, resolve(checkpoint.config, checkpoint.shapes), options)
    edits = shard_edits(plan.edits, checkpoint.locate())[SHARD].blocks
    kept: dict[str, torch.Tensor] = {}
    changed: dict[str, torch.Tensor] = {}
    for tensor, edit in edits.items():  # all are computed before the first is written
        original = checkpoint.tensors[tensor]
        block = _stored(original).copy()
        edit(block, 0)
        kept[tensor], changed[tensor] = original.detach().clone(), _tensor(block, original)
    _write(module, changed)
    key = ModuleKey(name, lambda target: _write(target, kept))
    return ModuleLock(name, key, FoldReport(plan.exponent, plan.channels, plan.left_out))


def _own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers that a checkpoint of the model would hold: tied ones once."""
    tied = set(getattr(module, "_tied_weights_keys", None) or ())
    seen: dict[tuple[int, int], str] = {}
    found: dict[str, torch.Tensor] = {}
    for name, tensor in sorted(module.state_dict(keep_vars=True).items(), key=lambda item: item[0] in tied):
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset())
        if tensor.numel() and place in seen and name in tied:
            continue
        seen.setdefault(place, name)
        found[name] = tensor
    return found


def _layout(module: nn.Module) -> tuple[dict[str, ShardHeader], tuple[str, ...]]:
    infos, start = [], 0
    for name, tensor in _own_tensors(module).items():
        dtype = STORED_NAMES[str(tensor.dtype).removeprefix("torch.")]
        end = start + tensor.numel() * BITS[dtype] // 8
        infos.append(TensorInfo(name, dtype, tuple(tensor.shape), start, end))
        start = end
    return {SHARD: ShardHeader(b"", None, tuple(infos))}, ()


def _stored(tensor: torch.Tensor) -> Stored:
    values = tensor.detach().cpu().contiguous()
    if values.dtype == torch.bfloat16:
        return cast(Stored, values.view(torch.int16).numpy().view(np.uint16))
    return values.numpy()


def _tensor(values: Stored, like: torch.Tensor) -> torch.Tensor:
    if like.dtype == torch.bfloat16:
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16).to(like.device)
    return torch.from_numpy(values).to(like.device)


def _write(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    own: dict[str, Any] = module.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, values in tensors.items():
            own[name].copy_(values)
