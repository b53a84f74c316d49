"""The ladder lock: one large factor a pair, each of another size, on the channels that vary least.

Like the fold lock it moves exponents only, so every output keeps every bit. It differs in which channels are scaled,
and in how far each is: see `rungs`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from specdef.architectures.resolve import ResolvedPair
from specdef.checkpoint.reader import Checkpoint
from specdef.core.dtypes import LOCKABLE
from specdef.errors import PlanError
from specdef.locks.base import PreparedLock
from specdef.locks.edits import Edit, Locations
from specdef.locks.kinds.fold.choose import usable_channels
from specdef.locks.kinds.ladder.measure import Measured
from specdef.locks.kinds.ladder.options import LadderOptions
from specdef.locks.kinds.ladder.rungs import Rung, Side, groups_of, levels_of, rungs_of
from specdef.locks.runtimes import broken, claims_of, survival
from specdef.locks.scaling import (
    exact_dtypes,
    narrow_dtypes,
    pair_edits,
    runs_in_float16,
    scaling_exponent,
    scaling_lock,
    signed_slots,
)

TRIED = 64
"""Channels of a pair that are tried for one that the factor scales exactly."""


@dataclass(frozen=True)
class ScaledChannel:
    """A rung as it is made.

    Attributes:
        pair: id of the pair.
        kind: of the pair.
        layer: of the pair; None for the final norm.
        side: which side is hot.
        channel: its number in the pair.
        exponent: log2 of the factor.
        level: log2 of how far the outputs move per unit of learning rate.
        constancy: |mean| over standard deviation of what it carries; None where that cannot be measured.
    """

    pair: str
    kind: str
    layer: int | None
    side: Side
    channel: int
    exponent: int
    level: float
    constancy: float | None


@dataclass(frozen=True)
class LadderPlan:
    """A ladder, ready to apply.

    Attributes:
        options: what was asked.
        channels: from the hottest.
        edits: every scaling, in order.
        left_out: pair id and side -> why there is no rung.
        model_level: log2 of how far the outputs move per unit of learning rate when the whole unlocked model trains.
    """

    options: LadderOptions
    channels: tuple[ScaledChannel, ...]
    edits: tuple[Edit, ...]
    left_out: Mapping[str, str]
    model_level: float


def refuse_narrow(checkpoint: Checkpoint, pairs: Sequence[ResolvedPair]) -> None:
    """Refuse weights that have no room for large factors.

    Raises:
        PlanError: float16 or quantised tensors, or a config that loads the model in float16.
    """
    where = checkpoint.locate()
    half = runs_in_float16(checkpoint.config)
    for slot in (slot for pair in pairs for slot in pair.slots):
        shard, tensor = where[slot.tensor]
        if half or tensor.dtype == "F16" or tensor.dtype not in LOCKABLE:
            found = "float16 by its config.json" if half else tensor.dtype
            raise PlanError(
                f"`preset` ladder must have weights in float32 or bfloat16, which have room for large factors; tensor "
                f"{tensor.name} of file {shard} is {found}. Convert the model to bfloat16 first, or use preset exact."
            )


def plan_ladder(
    checkpoint: Checkpoint, pairs: Sequence[ResolvedPair], measured: Measured, options: LadderOptions
) -> LadderPlan:
    """Choose rungs and their factors; reads the chosen rows and columns, writes nothing.

    Args:
        checkpoint: the source.
        pairs: of its model, chosen by kind and layer.
        measured: what its channels do.
        options: what was asked.

    Raises:
        PlanError: the multiplier is no power of two or too large, the gradients are not finite, or no rung can be made.
    """
    top = scaling_exponent(options.multiplier)
    if not 0 < measured.total < np.inf:
        raise PlanError(
            f"`model` must have finite outputs and gradients on the calibration text; their sum is {measured.total}. "
            "Repair its weights, or give another `calibration`."
        )
    groups = groups_of([rung for pair in pairs for rung in rungs_of(pair, measured.pairs[pair.id], options.seed)])
    where = checkpoint.locate()
    channels: list[ScaledChannel] = []
    edits: list[Edit] = []
    left_out: dict[str, str] = {}
    taken: set[tuple[str, int]] = set()
    for group, level in zip(groups, levels_of(groups, top, measured, options.margin), strict=True):
        for rung in group:
            found = _made(checkpoint, where, rung, level, top, taken)
            if found is None:
                left_out[f"{rung.pair.id} ({rung.side})"] = f"no channel can be scaled exactly to level {level:.1f}"
                continue
            taken.add((found.pair, found.channel))
            channels.append(found)
            edits += pair_edits(rung.pair, [found.channel], _direction(rung.side), found.exponent)
    if not channels:
        raise PlanError(f"`model` must have a channel that can be scaled exactly; {checkpoint.folder} has none.")
    ordered = tuple(sorted(channels, key=lambda channel: -channel.level))
    return LadderPlan(options, ordered, tuple(edits), left_out, float(np.log2(measured.total)))


def _made(
    checkpoint: Checkpoint, where: Locations, rung: Rung, level: float, top: int, taken: set[tuple[str, int]]
) -> ScaledChannel | None:
    """The rung on the first of its channels that reaches the level (or comes as near as `top` allows) exactly."""
    pair = rung.pair
    for rank, channel in enumerate(rung.channels[:TRIED]):
        slope = float(rung.slopes[channel])
        exponent = min(round(level - slope), top // pair.degree)
        if exponent < 1 or (pair.id, channel) in taken:
            continue
        if usable_channels(checkpoint, where, signed_slots(pair, _direction(rung.side), exponent), [channel])[0]:
            constancy = None if rung.constancies is None else float(rung.constancies[rank])
            return ScaledChannel(
                pair.id, pair.kind, pair.layer, rung.side, channel, exponent, exponent + slope, constancy
            )
    return None


def _direction(side: Side) -> str:
    """Which way producers are scaled so that a side is hot: it is the divided one."""
    return "up" if side == "consumer" else "down"


def prepared(checkpoint: Checkpoint, plan: LadderPlan, inputs: str) -> PreparedLock:
    """A planned ladder as edits, manifest entries and key.

    Args:
        checkpoint: the source.
        plan: of it.
        inputs: what it was measured on, in words.
    """
    stored = sorted({checkpoint.locate()[edit.tensor][1].dtype for edit in plan.edits})
    strength, exactness = describe(plan, inputs, stored, narrow_dtypes(checkpoint.config))
    said = remarks(plan, inputs, exactness["runtimes"])
    return scaling_lock(checkpoint, plan.edits, strength, exactness, left_out=plan.left_out, remarks=said)


def describe(
    plan: LadderPlan, inputs: str, stored: Sequence[str], loaded_in: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Strength and exactness, for the manifest and the report. No channel is named."""
    signed = [c.exponent if c.side == "consumer" else -c.exponent for c in plan.channels]
    kinds = sorted({c.kind for c in plan.channels})
    exponents = {
        kind: sorted((e for c, e in zip(plan.channels, signed, strict=True) if c.kind == kind), reverse=True)
        for kind in kinds
    }
    hottest = max(map(abs, signed))
    strength = {
        "multiplier": f"2^{hottest}",
        "exponent": hottest,
        "exponents": exponents,
        "num_layers": len({c.layer for c in plan.channels if c.layer is not None}),
        "measured_on": inputs,
    }
    exactness = {
        "bit_exact": True,
        "closeness": "bit-identical",
        "stored_dtypes": list(stored),
        **exact_dtypes(plan.edits, sorted({*stored, *loaded_in})),
        "kv_cache": "a cache in the model's own dtype is exact; float16 and fp8 overflow on scaled value channels",
        "quantisation": "quantising the locked model afterwards damages the channels it divides",
        "runtimes": _runtime_claims(plan),
        "left_out": dict(plan.left_out),
    }
    return strength, exactness


def _runtime_claims(plan: LadderPlan) -> dict[str, Any]:
    """What survives and what breaks, by the table of rules; a rung with a hot producer scales its producer down."""
    lost: dict[str, str] = {}
    for side in reversed(get_args(Side)):  # every pair has a hot consumer: what that breaks is told of all kinds
        scaled = [c for c in plan.channels if c.side == side]
        hottest = max((c.exponent for c in scaled), default=0)
        lost |= broken(sorted({c.kind for c in scaled}), hottest, _direction(side), block=1)
    return claims_of(lost)


def remarks(plan: LadderPlan, inputs: str, runtimes: Mapping[str, Any]) -> tuple[str, ...]:
    """How hot, how constant, and what no ladder covers, in sentences."""
    counts = Counter(c.kind for c in plan.channels)
    levels = [c.level for c in plan.channels]
    said = [
        f"{len(plan.channels)} rungs ({', '.join(f'{n} {kind}' for kind, n in counts.items())}), from "
        f"{levels[0] - plan.model_level:.0f} to {levels[-1] - plan.model_level:.0f} powers of two above the level at "
        f"which the whole model trains; measured on {inputs}."
    ]
    known = [c.constancy for c in plan.channels if c.constancy is not None and c.side == "consumer"]
    if known:
        said.append(
            f"What the hot channels carry is constant: mean over standard deviation {np.median(known):.1f} in the "
            f"middle, {min(known):.1f} at least."
        )
    said.append(f"{survival(runtimes)} For a runtime that it damages, use preset exact with `--runtimes`.")
    said.append("Parameters in no pair, such as the embeddings, train as before: no exact lock covers them.")
    return tuple(said)
