"""What locks that scale channels by powers of two share: the scalings, a locked folder from them, and the way back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from specdef.architectures.resolve import ResolvedPair, ResolvedSlot
from specdef.checkpoint.edits import ShardEdits
from specdef.checkpoint.reader import Checkpoint
from specdef.core.dtypes import STORED_NAMES, TORCH_NAMES
from specdef.errors import PlanError
from specdef.linalg.exponent import MAX_EXPONENT, NUMPY_DTYPES
from specdef.linalg.multiplier import exponent_of
from specdef.locks.base import PreparedLock
from specdef.locks.edits import Edit, inverse, shard_edits
from specdef.locks.key import Key, scalings, stored_tensors


def scaling_exponent(multiplier: float) -> int:
    """log2 of a multiplier.

    Raises:
        PlanError: it is no power of two, or beyond what squared gradients bear.
    """
    exponent = exponent_of(multiplier)
    if exponent > MAX_EXPONENT:
        raise PlanError(
            f"`multiplier` must be at most 2^{MAX_EXPONENT}, beyond which squared gradients overflow; got 2^{exponent}."
        )
    return exponent


def narrow_dtypes(config: Mapping[str, Any]) -> list[str]:
    """Safetensors' names of the 16-bit dtypes that config.json makes transformers cast the stored weights to."""
    inner = config.get("text_config")
    places = (config, inner if isinstance(inner, Mapping) else {})
    named = {str(place.get(key)).split(".")[-1] for place in places for key in ("dtype", "torch_dtype")}
    return sorted(STORED_NAMES[name] for name in named & {"float16", "bfloat16"})


def runs_in_float16(config: Mapping[str, Any]) -> bool:
    """Whether config.json makes transformers load the model in float16, whatever its weights are stored in."""
    return "F16" in narrow_dtypes(config)


def signed_slots(pair: ResolvedPair, direction: str, exponent: int) -> list[tuple[ResolvedSlot, int]]:
    """The slots of a pair with the power of two each is scaled by, where its producers are scaled by 2^exponent."""
    sign = 1 if direction == "up" else -1
    return [(slot, sign * exponent) for slot in pair.producers] + [
        (slot, -sign * exponent * pair.degree) for slot in pair.consumers
    ]


def pair_edits(pair: ResolvedPair, channels: Sequence[int], direction: str, exponent: int) -> Iterator[Edit]:
    """The scalings of some channels of a pair, where its producers are scaled ``up`` or ``down`` by 2^exponent."""
    for slot, signed in signed_slots(pair, direction, exponent):
        indices = tuple(sorted(i for channel in channels for i in slot.indices(channel)))
        yield Edit(slot.tensor, slot.axis, indices, signed, slot.offset)


def scaling_lock(
    checkpoint: Checkpoint,
    edits: Sequence[Edit],
    strength: Mapping[str, Any],
    exactness: Mapping[str, Any],
    *,
    left_out: Mapping[str, str],
    remarks: tuple[str, ...],
) -> PreparedLock:
    """Scalings, each checked while it was planned, as what to write and what the key must hold."""
    return PreparedLock(
        strength=strength,
        exactness=exactness,
        checked=("every scaled weight is normal and scales back to its original bits",),
        num_values=_num_values(edits, checkpoint),
        left_out=left_out,
        edits=shard_edits(edits, checkpoint.locate(), loaded_in=narrow_dtypes(checkpoint.config)),
        key_edits=tuple(edit.to_json() for edit in edits),
        blobs=_offset_originals(edits, checkpoint),
        remarks=remarks,
    )


def exact_dtypes(edits: Iterable[Edit], checked: Sequence[str]) -> dict[str, list[str]]:
    """Where the function is the original's: any wide dtype, but those checked alone where they decide what is exact.

    Args:
        edits: every scaling.
        checked: safetensors' names of the dtypes that the scaled tensors are stored in, or loaded in.
    """
    portable = "F16" not in checked and not any(edit.offset for edit in edits)
    exact_in = ["bfloat16", "float32"] if portable else [TORCH_NAMES[dtype] for dtype in checked]
    others = [name for name in ("bfloat16", "float16", "float32") if name not in exact_in]
    return {"exact_in": exact_in, "not_claimed_in": others}


def invert(checkpoint: Checkpoint, key: Key) -> dict[str, ShardEdits]:
    """The key's scalings backwards; tensors whose scaling has no inverse come whole from the key."""
    where = checkpoint.locate()
    tensors = {name: tensor for name, (_, tensor) in where.items()}
    originals = {
        name: np.frombuffer(data, dtype=NUMPY_DTYPES[tensors[name].dtype]).reshape(tensors[name].shape)
        for name, data in stored_tensors(key, tensors).items()
        if tensors[name].dtype in NUMPY_DTYPES
    }
    return shard_edits(inverse(scalings(key, tensors)), where, originals)


def _num_values(edits: Iterable[Edit], checkpoint: Checkpoint) -> int:
    """How many weights some edits scale."""
    shapes = checkpoint.shapes
    return sum(
        len(edit.indices) * int(np.prod(shapes[edit.tensor])) // shapes[edit.tensor][edit.axis] for edit in edits
    )


def _offset_originals(edits: Iterable[Edit], checkpoint: Checkpoint) -> dict[str, bytes]:
    """Raw bytes of the tensors whose scaling has no inverse on the stored number (Gemma's norms)."""
    where = checkpoint.locate()
    names = sorted({edit.tensor for edit in edits if edit.offset})
    return {f"tensor:{name}": np.ascontiguousarray(checkpoint.map_tensor(*where[name])).tobytes() for name in names}
