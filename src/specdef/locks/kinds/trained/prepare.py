"""A trained lock of a folder: load, train, and what changed as edits, claims and a key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from specdef.architectures.resolve import ResolvedModel
from specdef.checkpoint.edits import NewTensor, edits_by_shard
from specdef.checkpoint.reader import Checkpoint
from specdef.core.dtypes import LOCKABLE, TORCH_NAMES
from specdef.errors import PlanError
from specdef.linalg.multiplier import format_multiplier
from specdef.locks.base import PreparedLock
from specdef.locks.deformed_conv import refuse_conv
from specdef.locks.kinds.trained.options import TrainedOptions
from specdef.locks.kinds.trained.train import Outcome, Raised, train
from specdef.locks.matrices import choose_matrices
from specdef.locks.model_tensors import model_tensors
from specdef.locks.replaced import held_originals
from specdef.models.base import LoadedModel, kind_of
from specdef.models.equivalence import Equivalence, compare
from specdef.tasks.utility import Utility, UtilityData, refuse_missing_text, utility_for

LAYERS = ("Linear", "Conv1D", "Conv2d")
"""Classes of layers whose weights can be raised."""
DIGITS = 6
"""Significant digits of sigma_1 in the manifest."""


def prepare(checkpoint: Checkpoint, model: ResolvedModel, options: TrainedOptions) -> PreparedLock:
    """Train a copy in memory, in float32, on the CPU, beside the original.

    Raises:
        PlanError: a matrix cannot be trained, or no state within the utility budget raises sigma_1.
        SpecdefError: the model cannot be loaded, or the data is of no use for it.
    """
    names = choose_matrices(model, options, checkpoint.shapes)
    if options.text is not None:
        refuse_missing_text(options.text)
    kind = kind_of(checkpoint.folder)
    utility = utility_for(kind)
    content = utility.read(None if options.text is None else Path(options.text))
    loaded = kind.load(checkpoint.folder)
    named = [*loaded.model.named_parameters(), *loaded.model.named_buffers()]
    dtypes = {name: tensor.dtype for name, tensor in named}
    loaded.model.float()
    raised = _raised(checkpoint, loaded.model, names, model.architecture.transposed)
    data = _data(utility, content, loaded)
    outcome = train(loaded, raised, data, options)
    _refuse_too_little(outcome, options)
    changed = {name: _stored(checkpoint, name, one) for name, one in raised.items()}
    for name, tensor in (*loaded.model.named_parameters(), *loaded.model.named_buffers()):
        tensor.data = tensor.data.to(dtypes[name])
    return _prepared(checkpoint, options, outcome, changed, data, compare(checkpoint.folder, loaded.model))


def _raised(checkpoint: Checkpoint, model: Any, names: Sequence[str], transposed: bool) -> dict[str, Raised]:
    """The chosen matrices in memory.

    Raises:
        PlanError: one is no weight of a layer of its own there, or is of a dtype that is never locked.
    """
    where, sources, found = checkpoint.locate(), model_tensors(model).sources, {}
    for name in names:
        tensor, source = where[name][1], sources.get(name, "")
        layer = dict(model.named_modules()).get(source.removesuffix(".weight"))
        alone = [one for one, made_of in sources.items() if made_of == source] == [name]
        kind = type(layer).__name__
        if kind not in LAYERS or not alone or tensor.dtype not in LOCKABLE or _shape(layer) != tensor.shape:
            raise PlanError(
                f"`components` must be weights of linear layers or convolutions of {type(model).__name__}, stored as "
                f"F32, BF16 or F16 under the names it saves; got {name}. Choose others, or save the model anew."
            )
        if isinstance(layer, nn.Conv2d):
            refuse_conv(source.removesuffix(".weight"), layer)
        assert layer is not None
        found[name] = Raised(layer, transposed, getattr(torch, TORCH_NAMES[tensor.dtype] or ""))
    return found


def _shape(layer: Any) -> tuple[int, ...]:
    return tuple(layer.weight.shape)


def _data(utility: Utility, content: str, loaded: LoadedModel) -> UtilityData:
    """What is measured, and everything else of the general data to train on."""
    data = utility.prepare(content, loaded)
    rows = utility.training_rows(content, loaded, data)
    if rows is None:
        raise PlanError(f"`text` must give rows to train on; utility {utility.name} has none. Use another lock.")
    return replace(data, retained=rows)


def _refuse_too_little(outcome: Outcome, options: TrainedOptions) -> None:
    if not outcome.steps or _claimed(outcome) <= 1:
        raise PlanError(
            "`lr` must be such that sigma_1 rises by 0.1% while utility stays within a factor of "
            f"{options.utility_factor:g}; no evaluation of {options.lr:g} showed that ({outcome.ended}). "
            "Give a smaller `lr` or `eval_every`, a larger `retain_weight`, or more `steps`."
        )


def _claimed(outcome: Outcome) -> float:
    """The multiplier as the manifest says it."""
    return float(f"{outcome.multiplier:.4g}")


def _stored(checkpoint: Checkpoint, name: str, one: Raised) -> NewTensor:
    """A raised matrix as it goes into the folder."""
    tensor = checkpoint.locate()[name][1]
    data = one.weight.detach().to(one.dtype).contiguous().view(torch.uint8).numpy().tobytes()
    return NewTensor(tensor.dtype, tensor.shape, lambda: data)


def _prepared(
    checkpoint: Checkpoint,
    options: TrainedOptions,
    outcome: Outcome,
    changed: Mapping[str, NewTensor],
    data: UtilityData,
    probed: Equivalence,
) -> PreparedLock:
    edits = edits_by_shard(checkpoint, replaced=changed)
    blobs = held_originals(checkpoint, changed, edits)
    utility = data.utility
    before, after = outcome.utility
    said = f"{utility.name} {before:.4g} before, {after:.4g} after"
    source = "what ships with the package" if options.text is None else Path(options.text).name
    exactness = {
        "bit_exact": False,
        "closeness": f"not the original's: {said}; KL {probed.kl:.3g} on random inputs",
        "utility": {"name": utility.name, "unit": utility.unit, "before": before, "after": after, "data": source},
        "kl": probed.kl,
        "max_error": probed.max_error,
        "stored_dtypes": sorted({tensor.dtype for tensor in changed.values()}),
        "exact_in": [],
        "not_claimed_in": [],
        "kv_cache": "no cache was tried but that of the model's own dtype",
        "quantisation": "quantising it was not tried: the raised directions take most of a format's range",
    }
    strength = {
        "multiplier": format_multiplier(_claimed(outcome)),
        "wished": format_multiplier(options.multiplier),
        "top_k": options.rank,
        "sigma_1": {name: [_short(outcome.before[name]), _short(value)] for name, value in outcome.after.items()},
        "steps": outcome.steps,
        "ended": outcome.ended,
    }
    return PreparedLock(
        strength=strength,
        exactness=exactness,
        checked=(f"{said}, on {source}, measured as stored", "sigma_1 of every raised matrix, as stored"),
        num_values=sum(math.prod(tensor.shape) for tensor in changed.values()),
        edits=edits,
        blobs=blobs,
        remarks=(
            f"Training ended: {outcome.ended}.",
            "This lock is not exact: the locked model is another function, close to the original on what it was held "
            "to and nowhere else. `specdef verify OUT --original MODEL` says how close on random inputs.",
            f"The key holds the original bytes of what was raised ({sum(map(len, blobs.values())) / 1e6:.1f} MB).",
        ),
    )


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
