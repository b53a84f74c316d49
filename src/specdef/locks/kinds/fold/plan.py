"""The fold lock: power-of-two factors on channels of compensable pairs, undone in the layer that already follows.

Nothing is added to the model. A producer channel is scaled by ``2^e`` and its consumers by ``2^-e`` (``2^-ne`` across a
map that is positively homogeneous of degree n), which moves exponents only, so every logit keeps every bit (main paper,
Theorem 6's cross-layer compensation, restricted to the axis basis where it is exact). Gradients of the scaled channels
grow by ``2^e`` on one side and shrink on the other: the loss surface is sharp, the function is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from specdef.architectures.resolve import ResolvedModel, ResolvedPair
from specdef.checkpoint.reader import Checkpoint
from specdef.core.dtypes import LOCKABLE
from specdef.errors import PlanError
from specdef.linalg.exponent import MAX_EXPONENT
from specdef.locks.base import PreparedLock
from specdef.locks.edits import Edit, Locations
from specdef.locks.kinds.fold.budget import cache_claim, runtime_claims, runtime_remarks, within_budget
from specdef.locks.kinds.fold.choose import NoExactChannelError, choose_channels
from specdef.locks.kinds.fold.options import FoldOptions
from specdef.locks.scaling import (
    exact_dtypes,
    narrow_dtypes,
    pair_edits,
    runs_in_float16,
    scaling_exponent,
    scaling_lock,
)
from specdef.locks.selection import select_layers, select_pairs

FP16_ACTIVATION_EXPONENT = 10
"""Assumed bound 2^10 on unscaled activations; float16 ends at 2^16, so `up` may add at most 2^5."""
FP16_MAX_EXPONENT = 15 - FP16_ACTIVATION_EXPONENT
STRONGER = (
    "Whoever lowers the learning rate far enough trains this lock. Preset `ladder` held at every rate tried on a "
    "language model (docs/results.md); to plan, it runs the model once."
)


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
    exponent = scaling_exponent(options.multiplier)
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
    edits = [edit for pair in locked for edit in pair_edits(pair, channels[pair.id], options.direction, exponent)]
    touched = tuple(sorted({pair.layer for pair in locked if pair.layer is not None}))
    return LockPlan(options, exponent, channels, tuple(edits), left_out, headroom, touched)


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


def prepare(checkpoint: Checkpoint, model: ResolvedModel, options: FoldOptions) -> PreparedLock:
    """The planned lock as edits, manifest entries and key."""
    plan = plan_fold(checkpoint, model, options)
    strength, exactness = _describe(plan, model, narrow_dtypes(checkpoint.config))
    weakness = (*_remarks(strength["pairs"], model, options), *model.architecture.remarks)
    stronger = () if weakness or options.runtimes or not exactness["bit_exact"] else (STRONGER,)
    remarks = (*weakness, *runtime_remarks(exactness["runtimes"]), *stronger)
    return scaling_lock(checkpoint, plan.edits, strength, exactness, left_out=plan.left_out, remarks=remarks)


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


def _describe(plan: LockPlan, model: ResolvedModel, loaded_in: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
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
    checked = sorted({*dtypes, *loaded_in})
    half = "F16" in checked
    exactness = {
        "bit_exact": not half,
        "closeness": "identical while no activation leaves float16's normal range" if half else "bit-identical",
        "stored_dtypes": dtypes,
        **exact_dtypes(plan.edits, checked),
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
