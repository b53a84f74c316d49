"""A ladder from start to end: load, measure, plan; on a folder, and on a model in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from specdef.architectures.resolve import ResolvedPair, resolve
from specdef.checkpoint.reader import Checkpoint
from specdef.core.memory import physical_memory
from specdef.core.results import Result
from specdef.errors import PlanError
from specdef.locks.base import ModuleLock, PreparedLock
from specdef.locks.kinds.fold.memory import scale_module
from specdef.locks.kinds.ladder.inputs import folder_inputs, loaded, probes
from specdef.locks.kinds.ladder.measure import measure
from specdef.locks.kinds.ladder.options import LadderOptions
from specdef.locks.kinds.ladder.plan import ScaledChannel, plan_ladder, prepared, refuse_narrow
from specdef.locks.model_tensors import model_tensors
from specdef.locks.selection import select_pairs

BYTES_PER_WEIGHT = 8
"""A weight in float32 and its gradient."""


@dataclass(frozen=True, repr=False)
class LadderReport(Result):
    """What the ladder lock did to a model in memory.

    Attributes:
        channels: every rung, from the hottest.
        left_out: pair id and side -> why there is no rung.
    """

    channels: tuple[ScaledChannel, ...]
    left_out: Mapping[str, str]


def prepare(checkpoint: Checkpoint, pairs: Sequence[ResolvedPair], options: LadderOptions) -> PreparedLock:
    """Plan the lock of a folder. The whole model is held in memory, in float32, with a gradient for every weight.

    Args:
        checkpoint: the folder.
        pairs: of its model, that may become rungs.
        options: checked.

    Raises:
        PlanError: it cannot be applied as asked.
        SpecdefError: the model cannot be loaded or run, or the calibration text cannot be read.
    """
    refuse_narrow(checkpoint, pairs)
    _refuse_large(checkpoint)
    module = loaded(checkpoint.folder)
    inputs = folder_inputs(checkpoint.folder, module, checkpoint.config, options.calibration)
    measured = measure(module, pairs, inputs.tensors, seed=options.seed)
    del module
    return prepared(checkpoint, plan_ladder(checkpoint, pairs, measured, options), inputs.described)


def _refuse_large(checkpoint: Checkpoint) -> None:
    needed, memory = BYTES_PER_WEIGHT * sum(map(math.prod, checkpoint.shapes.values())), physical_memory()
    if needed > memory:
        raise PlanError(
            f"`preset` ladder must hold the model and its gradients in memory, in float32: {needed / 2**30:.3g} GiB "
            f"for {checkpoint.folder}; this machine has {memory / 2**30:.3g} GiB. Use a larger one, or preset exact, "
            "which reads a tensor at a time."
        )


def lock_module(name: str, module: nn.Module, options: LadderOptions) -> ModuleLock:
    """Scale channels of a transformers model in place. It is measured on seeded probes: it has no tokenizer.

    Args:
        name: of this kind of lock.
        module: a transformers model of a family with a map.
        options: checked.

    Raises:
        PlanError: no transformers model, a calibration text, or the lock cannot be applied exactly.
        ArchitectureError: its family has no map, or its tensors are not its map's.
    """
    if not isinstance(module, PreTrainedModel):
        raise PlanError(
            f"`module` must be a transformers model for lock {name}, which reads its config; got "
            f"{type(module).__name__}. Use preset paper and name its layers with `targets`."
        )
    if options.calibration is not None:
        raise PlanError(
            "`calibration` must be left out for a model in memory, which has no tokenizer. Lock its folder."
        )
    tensors = model_tensors(module)
    pairs = select_pairs(resolve(tensors.config, tensors.shapes), options.pairs, options.layers)
    refuse_narrow(tensors, pairs)
    measured = measure(module, pairs, probes(module, tensors.config).tensors, seed=options.seed)
    plan = plan_ladder(tensors, pairs, measured, options)
    return scale_module(name, module, tensors, plan.edits, LadderReport(plan.channels, plan.left_out))
