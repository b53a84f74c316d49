"""The fold lock: power-of-two factors on channels of compensable pairs, undone in the layer that already follows.

Nothing is added to the model. A producer channel is scaled by ``2^e`` and its consumers by ``2^-e`` (``2^-ne`` across a
map that is positively homogeneous of degree n), which moves exponents only, so every logit keeps every bit (main paper,
Theorem 6's cross-layer compensation, restricted to the axis basis where it is exact). Gradients of the scaled channels
grow by ``2^e`` on one side and shrink on the other: the loss surface is sharp, the function is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from specdef.architectures.resolve import ResolvedModel, ResolvedPair
from specdef.checkpoint.edits import ShardEdits
from specdef.checkpoint.reader import Checkpoint
from specdef.core.dtypes import LOCKABLE, TORCH_NAMES
from specdef.errors import PlanError
from specdef.linalg.exponent import MAX_EXPONENT, NUMPY_DTYPES, Stored
from specdef.linalg.multiplier import exponent_of
from specdef.locks.base import PreparedLock
from specdef.locks.edits import Edit, Locations, inverse, shard_edits
from specdef.locks.key import Key, scalings, stored_tensors
from specdef.locks.kinds.fold.budget import cache_claim, runtime_claims, runtime_remarks, within_budget
from specdef.locks.kinds.fold.choose import NoExactChannelError, choose_channels, signed_slots
from specdef.locks.kinds.fold.options import FoldOptions
from specdef.locks.selection import select_layers

FP16_ACTIVATION_EXPONENT = 10
"""Assumed bound 2^10 on unscaled activations; float16 ends at 2^16, so `up` may add at most 2^5."""
FP16_MAX_EXPONENT = 15 - FP16_ACTIVATION_EXPONENT


@dataclass(frozen=True)
class LockPlan:
    """A fold lock, ready to apply.

    Attributes:
        options: what was asked.
        exponent: log2 of the multiplier.
        channels: pair id -> channels scaled.
        edits: every scaling, in order.
        left_out: pair id -> why it is not locked; only where the user did not ask for its kind by name.
        headroom: dtype -> the rule that bounded the exponent, in words.
        layers: layers touched.
    """

    options: FoldOptions
    exponent: int
    channels: Mapping[str, tuple[int, ...]]
    edits: tuple[Edit, ...]
    left_out: Mapping[str, str]
    headroom: Mapping[str, str]
    layers: tuple[int, ...]


def plan_fold(checkpoint: Checkpoint, model: ResolvedModel, options: FoldOptions) -> LockPlan:
    """Choose channels and their factors; reads the chosen rows and columns, writes nothing.

    The choice is a pure function of the weights and the seed: each pair draws its channels in a seeded order and skips
    those that are dead (all-zero on one side) or where the factor is not exact in the stored dtype.

    Args:
        checkpoint: the source.
        model: its resolved architecture.
        options: what was asked.

    Returns:
        The plan; pairs without an exact channel are left out with their reason, unless asked for by kind.

    Raises:
        PlanError: the multiplier is not a power of two or beyond the dtype's headroom, an unknown pair kind or layer,
            a tensor in a format that has no exponent to move, or a pair with too few exact channels.
    """
    exponent = exponent_of(options.multiplier)
    if exponent > MAX_EXPONENT:
        raise PlanError(
            f"`multiplier` must be at most 2^{MAX_EXPONENT}, beyond which squared gradients overflow; got 2^{exponent}."
        )
    layers = select_layers(model.dims.num_layers, options.layers, options.num_layers, options.seed)
    restricted = options.layers is not None or options.num_layers is not None
    budgeted = within_budget(
        model, select_pairs(model, options.pairs, layers if restricted else None), options, exponent
    )
    options, exponent, pairs = budgeted.options, budgeted.exponent, budgeted.pairs
    where = checkpoint.locate()
    for pair in pairs:
        if exponent * pair.degree > MAX_EXPONENT:
            raise PlanError(
                f"`multiplier` must be at most 2^{MAX_EXPONENT // pair.degree} for pair {pair.id}, whose activation is "
                f"homogeneous of degree {pair.degree}; got 2^{exponent}. Use that, or leave the pair out with `pairs`."
            )
    headroom = _check_dtypes(pairs, where, options, exponent, runs_in_float16(checkpoint.config))
    channels: dict[str, tuple[int, ...]] = {}
    left_out = dict(budgeted.left_out)
    for pair in pairs:
        try:
            channels[pair.id] = choose_channels(checkpoint, where, pair, options, exponent)
        except NoExactChannelError as refusal:
            left_out[pair.id] = str(refusal)
            if options.pairs is not None or len(left_out) == len(pairs) + len(budgeted.left_out):
                raise
    locked = [pair for pair in pairs if pair.id in channels]
    edits = [edit for pair in locked for edit in _edits(pair, channels[pair.id], options.direction, exponent)]
    touched = tuple(sorted({pair.layer for pair in locked if pair.layer is not None}))
    return LockPlan(options, exponent, channels, tuple(edits), left_out, headroom, touched)


def select_pairs(model: ResolvedModel, kinds: Sequence[str] | None, layers: Sequence[int] | None) -> list[ResolvedPair]:
    """The pairs of some kinds in some layers.

    Args:
        model: whose.
        kinds: of pairs; every one it has when None.
        layers: their numbers; with those of no layer, all when None.

    Raises:
        PlanError: it has no pair of a kind, or none that is left.
    """
    available = {pair.kind for pair in model.pairs}
    wanted = available if kinds is None else set(kinds)
    missing = sorted(wanted - available)
    if missing:
        excluded = (*model.withheld, *model.architecture.exclusions)
        reasons = "; ".join(f"{e.what}: {e.reason}" for e in excluded)
        raise PlanError(
            f"`pairs` must be drawn from {', '.join(sorted(available))} for this {model.architecture.name} checkpoint; "
            f"got {', '.join(missing)}. Left out there: {reasons}."
        )
    chosen = [pair for pair in model.pairs if pair.kind in wanted and (layers is None or pair.layer in layers)]
    if not chosen:
        raise PlanError(
            f"`pairs` and `layers` select nothing in this checkpoint; it has {', '.join(sorted(available))}."
        )
    return chosen


def _check_dtypes(
    pairs: Iterable[ResolvedPair], where: Locations, options: FoldOptions, exponent: int, half: bool
) -> dict[str, str]:
    headroom: dict[str, str] = {}
    for pair in pairs:
        for slot in pair.slots:
            shard, tensor = where[slot.tensor]
            if tensor.dtype not in LOCKABLE:
                raise PlanError(
                    f"Tensor {tensor.name} of file {shard} is stored as {tensor.dtype}; a lock needs F32, BF16 or F16. "
                    "Lock the model before quantising it."
                )
            if (half or tensor.dtype == "F16") and (options.direction == "down" or exponent > FP16_MAX_EXPONENT):
                raise PlanError(
                    f"`multiplier` must be at most 2^{FP16_MAX_EXPONENT}, direction up, for float16 tensors "
                    f"(activations up to 2^{FP16_ACTIVATION_EXPONENT} must stay below 65504, and scaled-down ones "
                    f"would be subnormal); got 2^{exponent} {options.direction} for tensor "
                    f"{tensor.name} of file {shard}. Use that, or convert the model to bfloat16 first."
                )
            headroom[tensor.dtype] = (
                f"at most 2^{FP16_MAX_EXPONENT} up, assuming unscaled activations below 2^{FP16_ACTIVATION_EXPONENT}"
                if half or tensor.dtype == "F16"
                else f"at most 2^{MAX_EXPONENT} either way; every touched weight checked exact and normal"
            )
    return headroom


def runs_in_float16(config: Mapping[str, Any]) -> bool:
    """Whether config.json makes transformers load the model in float16, whatever its weights are stored in."""
    inner = config.get("text_config")
    places = (config, inner if isinstance(inner, Mapping) else {})
    return any("float16" in str(place.get(key)).split(".") for place in places for key in ("dtype", "torch_dtype"))


def _edits(pair: ResolvedPair, channels: Sequence[int], direction: str, exponent: int) -> Iterable[Edit]:
    for slot, signed in signed_slots(pair, direction, exponent):
        indices = tuple(sorted(i for channel in channels for i in slot.indices(channel)))
        yield Edit(slot.tensor, slot.axis, indices, signed, slot.offset)


def prepare(checkpoint: Checkpoint, model: ResolvedModel, options: FoldOptions) -> PreparedLock:
    """The planned lock as edits, manifest entries and key."""
    plan = plan_fold(checkpoint, model, options)
    strength, exactness = _describe(plan, model)
    return PreparedLock(
        strength=strength,
        exactness=exactness,
        checked=("every scaled weight is normal and scales back to its original bits",),
        num_values=num_values(plan.edits, checkpoint),
        left_out=plan.left_out,
        edits=shard_edits(plan.edits, checkpoint.locate()),
        key_edits=tuple(edit.to_json() for edit in plan.edits),
        blobs=offset_originals(plan.edits, checkpoint),
        remarks=(*_remarks(strength["pairs"], model, options), *runtime_remarks(exactness["runtimes"])),
    )


def _remarks(pairs: Mapping[str, int], model: ResolvedModel, options: FoldOptions) -> tuple[str, ...]:
    """That one kind of pair is little, and why there is no other."""
    if len(pairs) > 1:
        return ()
    kind = next(iter(pairs))
    weak = (
        f"This lock is weak: it scales one kind of pair, {kind}. Whoever leaves its matrices alone trains the rest at "
        "ordinary rates, because every other gradient is what it was."
    )
    if options.pairs is not None:
        return (weak, "Leave out `pairs` to lock every kind this model has.")
    reasons = "; ".join(f"{e.what} ({e.reason})" for e in (*model.withheld, *model.architecture.exclusions))
    return (weak, f"This {model.architecture.name} model has no other exact pair: {reasons}.") if reasons else (weak,)


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


def _describe(plan: LockPlan, model: ResolvedModel) -> tuple[dict[str, Any], dict[str, Any]]:
    kinds = {pair.id: pair.kind for pair in model.pairs}
    counts: dict[str, int] = {}
    for pair in plan.channels:
        counts[kinds[pair]] = counts.get(kinds[pair], 0) + 1
    dtypes = sorted(plan.headroom)
    strength = {
        "multiplier": f"2^{plan.exponent}",
        "exponent": plan.exponent,
        "direction": plan.options.direction,
        "channels_per_pair": plan.options.channels,
        "pairs": counts,
        "num_layers": len(plan.layers),
    }
    half = "F16" in dtypes
    portable = not half and not any(edit.offset for edit in plan.edits)
    exact_in = ["bfloat16", "float32"] if portable else [TORCH_NAMES[dtype] for dtype in dtypes]
    exactness = {
        "bit_exact": not half,
        "closeness": "identical while no activation leaves float16's normal range" if half else "bit-identical",
        "stored_dtypes": dtypes,
        "exact_in": exact_in,
        "not_claimed_in": [name for name in ("bfloat16", "float16", "float32") if name not in exact_in],
        "kv_cache": cache_claim(counts, plan.exponent, plan.options),
        "quantisation": (
            "quantising the locked model afterwards damages the channels it divides"
            + (", but in the formats it was planned for" if plan.options.runtimes else "")
        ),
        "runtimes": runtime_claims(counts, plan.exponent, plan.options),
        "headroom": dict(plan.headroom),
        "left_out": dict(plan.left_out),
    }
    return strength, exactness


def num_values(edits: Iterable[Edit], checkpoint: Checkpoint) -> int:
    """How many weights some edits scale."""
    shapes = checkpoint.shapes
    return sum(
        len(edit.indices) * int(np.prod(shapes[edit.tensor])) // shapes[edit.tensor][edit.axis] for edit in edits
    )


def offset_originals(edits: Iterable[Edit], checkpoint: Checkpoint) -> dict[str, bytes]:
    """Raw bytes of the tensors whose scaling has no inverse on the stored number (Gemma's norms)."""
    where = checkpoint.locate()
    names = sorted({edit.tensor for edit in edits if edit.offset})
    return {f"tensor:{name}": _bytes(checkpoint.map_tensor(*where[name])) for name in names}


def _bytes(values: Stored) -> bytes:
    return np.ascontiguousarray(values).tobytes()
