"""A trained lock of a folder: load, train, and what changed as edits, claims and a key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from specdef.architectures.resolve import ResolvedModel
from specdef.checkpoint.edits import NewTensor, edits_by_shard
from specdef.checkpoint.reader import Checkpoint
from specdef.core.dtypes import LOCKABLE, TORCH_NAMES
from specdef.errors import PlanError
from specdef.linalg.multiplier import format_multiplier
from specdef.locks.base import PreparedLock
from specdef.locks.kinds.trained.options import TrainedOptions
from specdef.locks.kinds.trained.train import Outcome, train, unfrozen
from specdef.locks.matrices import choose_matrices
from specdef.locks.model_tensors import ModelTensors, model_tensors, saved_parts
from specdef.locks.replaced import held_originals, read_tensor
from specdef.models.base import LoadedModel, kind_of
from specdef.models.equivalence import Equivalence, compare
from specdef.tasks.utility import Utility, UtilityData, refuse_missing_text, utility_for

DIGITS = 6
"""Significant digits of sigma_1 in the manifest."""


@dataclass(frozen=True)
class _Subject:
    """A model that is being locked.

    Attributes:
        loaded: in float32.
        dtypes: parameter or buffer -> what transformers loads it as.
        tensors: it as a checkpoint.
        stored: trained parameter -> dtype of its tensors in the folder.
    """

    loaded: LoadedModel
    dtypes: Mapping[str, torch.dtype]
    tensors: ModelTensors
    stored: Mapping[str, torch.dtype]


def prepare(checkpoint: Checkpoint, model: ResolvedModel, options: TrainedOptions) -> PreparedLock:
    """Train a copy in memory, in float32, on the CPU, beside the original and the optimizer's two moments of it.

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
    subject = _load(checkpoint, kind.load(checkpoint.folder))
    data = _data(utility, content, subject.loaded)
    outcome = train(subject.loaded, _parameters(subject, names), subject.stored, data, options)
    _refuse_too_little(outcome, options)
    changed = _changed(checkpoint, subject)
    for name, tensor in (*subject.loaded.model.named_parameters(), *subject.loaded.model.named_buffers()):
        tensor.data = tensor.data.to(subject.dtypes[name])
    return _prepared(checkpoint, options, outcome, changed, data, compare(checkpoint.folder, subject.loaded.model))


def _load(checkpoint: Checkpoint, loaded: LoadedModel) -> _Subject:
    """Widen a model to float32, and let those parameters train that lie in the folder as they are saved."""
    named = dict([*loaded.model.named_parameters(), *loaded.model.named_buffers()])
    dtypes = {name: tensor.dtype for name, tensor in named.items()}
    loaded.model.float()
    tensors = model_tensors(loaded.model)
    where = {name: tensor for name, (_, tensor) in checkpoint.locate().items()}
    stale = {loaded.model.state_dict()[name].data_ptr() for name in where if name in _repeated(loaded.model, tensors)}
    stored: dict[str, torch.dtype] = {}
    for source, parameter in loaded.model.named_parameters():
        parts = [name for name, made_of in tensors.sources.items() if made_of == source]
        held = {where[name].dtype if name in where else "" for name in parts}
        if len(held) == 1 and held <= set(LOCKABLE) and parameter.data_ptr() not in stale:
            stored[source] = getattr(torch, TORCH_NAMES[held.pop()] or "")
    unfrozen(loaded.model, list(stored))
    return _Subject(loaded, dtypes, tensors, stored)


def _repeated(model: Any, tensors: ModelTensors) -> set[str]:
    """Names under which a tied parameter is held once more; a folder that has them would keep the old numbers."""
    return {str(name) for name in model.state_dict()} - set(tensors.own)


def _data(utility: Utility, content: str, loaded: LoadedModel) -> UtilityData:
    data = utility.prepare(content, loaded)
    if data.retained is None:
        raise PlanError(f"`text` must give rows to train on; utility {utility.name} has none. Use another lock.")
    return data


def _parameters(subject: _Subject, names: Sequence[str]) -> dict[str, torch.nn.Parameter]:
    """The chosen matrices in memory.

    Raises:
        PlanError: one is no parameter of its own there, or cannot be trained.
    """
    own = dict(subject.loaded.model.named_parameters())
    found = {}
    for name in names:
        source = subject.tensors.sources.get(name, "")
        parts = [tensor for tensor, made_of in subject.tensors.sources.items() if made_of == source]
        if source not in subject.stored or parts != [name]:
            raise PlanError(
                f"`components` must be matrices that {type(subject.loaded.model).__name__} holds one by one, stored as "
                f"F32, BF16 or F16 under the names it saves; got {name}. Choose others, or save the model anew."
            )
        found[name] = own[source]
    return found


def _refuse_too_little(outcome: Outcome, options: TrainedOptions) -> None:
    if not outcome.steps or outcome.multiplier <= 1:
        raise PlanError(
            f"`lr` must be such that sigma_1 rises while utility stays within a factor of {options.utility_factor:g}; "
            f"no evaluation of {options.lr:g} showed that ({outcome.ended}). Give a smaller `lr` or `eval_every`, a "
            "larger `retain_weight`, or more `steps`."
        )


def _changed(checkpoint: Checkpoint, subject: _Subject) -> dict[str, NewTensor]:
    """Tensor -> its new content, of those whose bytes changed."""
    where, own, found = checkpoint.locate(), dict(subject.loaded.model.named_parameters()), {}
    for source, dtype in subject.stored.items():
        for name, part in saved_parts(subject.loaded.model, source, own[source].detach()).items():
            shard, tensor = where[name]
            new = part.to(dtype).contiguous()
            if not torch.equal(new, read_tensor(checkpoint, shard, tensor)):
                data = new.view(torch.uint8).numpy().tobytes()
                found[name] = NewTensor(tensor.dtype, tensor.shape, lambda data=data: data)  # type: ignore[misc]
    return found


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
        "multiplier": format_multiplier(float(f"{outcome.multiplier:.4g}")),
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
            f"The key holds the original weights ({sum(map(len, blobs.values())) / 1e6:.1f} MB).",
        ),
    )


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
