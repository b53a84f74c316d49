"""The fold lock of a model in memory: the same channels and factors as of the same weights in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from specdef.architectures.resolve import resolve
from specdef.core.results import Result
from specdef.errors import PlanError
from specdef.linalg.exponent import Stored
from specdef.locks.base import ModuleKey, ModuleLock
from specdef.locks.edits import Edit, shard_edits
from specdef.locks.kinds.fold.options import FoldOptions
from specdef.locks.kinds.fold.plan import plan_fold
from specdef.locks.model_tensors import SHARD, ModelTensors, model_tensors, write_tensors
from specdef.locks.scaling import narrow_dtypes


@dataclass(frozen=True, repr=False)
class FoldReport(Result):
    """What the fold lock did to a model in memory.

    Attributes:
        exponent: log2 of the multiplier.
        pairs: pair id -> channels scaled.
        left_out: pair id -> why it is not locked.
    """

    exponent: int
    pairs: Mapping[str, tuple[int, ...]]
    left_out: Mapping[str, str]


def lock_module(name: str, module: nn.Module, options: FoldOptions) -> ModuleLock:
    """Scale channels of a transformers model in place.

    Args:
        name: of this kind of lock.
        module: a transformers model of a family with a map.
        options: checked.

    Raises:
        PlanError: no transformers model, or the lock cannot be applied exactly.
        ArchitectureError: its family has no map, or its tensors are not its map's.
    """
    if not isinstance(module, PreTrainedModel):
        raise PlanError(
            f"`module` must be a transformers model for lock {name}, which reads its config; got "
            f"{type(module).__name__}. Name its layers with `targets` instead."
        )
    tensors = model_tensors(module)
    plan = plan_fold(tensors, resolve(tensors.config, tensors.shapes), options)
    return scale_module(name, module, tensors, plan.edits, FoldReport(plan.exponent, plan.channels, plan.left_out))


def scale_module(
    name: str, module: nn.Module, tensors: ModelTensors, edits: Sequence[Edit], report: Result
) -> ModuleLock:
    """Apply scalings of checkpoint tensors to a model in memory, all of them or, on an error, none.

    Args:
        name: of the kind of lock.
        module: a transformers model.
        tensors: of it.
        edits: the scalings.
        report: what to say of them.
    """
    where = tensors.locate()
    changed: dict[str, Stored] = {}
    for tensor, edit in shard_edits(edits, where, loaded_in=narrow_dtypes(tensors.config))[SHARD].blocks.items():
        changed[tensor] = tensors.map_tensor(*where[tensor]).copy()
        edit(changed[tensor], 0)
    values = tensors.in_memory(changed)
    originals = {parameter: tensors.own[parameter].detach().clone() for parameter in values}
    write_tensors(module, values)
    return ModuleLock(name, ModuleKey(name, originals), report)
