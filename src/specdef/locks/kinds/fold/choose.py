"""Which channels of a pair a fold lock scales: drawn in a seeded order, dead and inexact ones skipped."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from specdef.architectures.resolve import ResolvedPair, ResolvedSlot
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import PlanError
from specdef.linalg.exponent import MAX_EXPONENT, scale, scale_offset
from specdef.locks.edits import Locations
from specdef.locks.kinds.fold.options import FoldOptions

FIRST_CANDIDATES, SPARE_CANDIDATES = 64, 3
"""Channels looked at before all of a pair's; of those, beyond the ones needed, the ones looked at first."""


class NoExactChannelError(PlanError):
    """A pair has too few channels that the factor scales exactly."""


def signed_slots(pair: ResolvedPair, direction: str, exponent: int) -> list[tuple[ResolvedSlot, int]]:
    """The slots of a pair with the power of two each is scaled by, where its producers are scaled by 2^exponent."""
    sign = 1 if direction == "up" else -1
    return [(slot, sign * exponent) for slot in pair.producers] + [
        (slot, -sign * exponent * pair.degree) for slot in pair.consumers
    ]


def choose_channels(
    checkpoint: Checkpoint, where: Locations, pair: ResolvedPair, options: FoldOptions, exponent: int
) -> tuple[int, ...]:
    """As many channels of a pair as `options` ask for, alive on both sides and scaled exactly by 2^exponent.

    Args:
        checkpoint: the source.
        where: its tensors.
        pair: one of its pairs.
        options: number of channels, direction and seed.
        exponent: log2 of the multiplier.

    Returns:
        Their numbers in the pair, sorted: a pure function of the weights and the seed.

    Raises:
        PlanError: the pair has fewer channels than asked for.
        NoExactChannelError: it has fewer that are scaled exactly; the message names the nearest multipliers that fit.
    """
    if options.channels > pair.size:
        raise PlanError(
            f"`channels` must be at most {pair.size}, the channels of pair {pair.id}; got {options.channels}."
        )
    rng = random.Random(f"{options.seed}:{pair.id}")
    candidates = rng.sample(range(pair.size), min(pair.size, FIRST_CANDIDATES + options.channels))
    signed = signed_slots(pair, options.direction, exponent)
    few = candidates[: options.channels + SPARE_CANDIDATES]
    usable = usable_channels(checkpoint, where, signed, few)
    if usable.sum() < options.channels:
        few, usable = candidates, usable_channels(checkpoint, where, signed, candidates)
    if usable.sum() < options.channels and len(candidates) < pair.size:
        rest = sorted(set(range(pair.size)) - set(candidates))
        rng.shuffle(rest)
        few = candidates + rest
        usable = usable_channels(checkpoint, where, signed, few)
    chosen = [channel for channel, fine in zip(few, usable, strict=True) if fine][: options.channels]
    if len(chosen) < options.channels:
        raise _too_few(checkpoint, where, pair, options, exponent, few)
    return tuple(sorted(chosen))


def usable_channels(
    checkpoint: Checkpoint,
    where: Locations,
    signed: Sequence[tuple[ResolvedSlot, int]],
    candidates: Sequence[int],
) -> npt.NDArray[np.bool_]:
    """Which candidate channels are alive on both sides and exactly scalable in every slot."""
    usable = np.ones(len(candidates), dtype=bool)
    for slot, exponent in signed:
        if not usable.any():
            break
        shard, tensor = where[slot.tensor]
        positions = np.array([list(slot.indices(c)) for c in candidates])
        values = np.take(checkpoint.map_tensor(shard, tensor), positions.reshape(-1), axis=slot.axis)
        if slot.offset:
            _, exact = scale_offset(values, tensor.dtype, exponent, slot.offset)
        else:
            _, exact = scale(values, tensor.dtype, exponent)
        per_channel = np.moveaxis(exact, slot.axis, 0).reshape(len(candidates), -1)
        usable &= per_channel.all(axis=1)
        if len(tensor.shape) > 1:
            alive = np.moveaxis(values != 0, slot.axis, 0).reshape(len(candidates), -1)
            usable &= alive.any(axis=1)
    return usable


def _too_few(
    checkpoint: Checkpoint,
    where: Locations,
    pair: ResolvedPair,
    options: FoldOptions,
    exponent: int,
    candidates: Sequence[int],
) -> NoExactChannelError:
    def fits(other: int) -> bool:
        signed = signed_slots(pair, options.direction, other)
        return bool(usable_channels(checkpoint, where, signed, candidates).sum() >= options.channels)

    smaller = next((e for e in range(exponent - 1, 0, -1) if fits(e)), None)
    larger = next((e for e in range(exponent + 1, MAX_EXPONENT + 1) if fits(e)), None)
    nearest = " and ".join(f"2^{e}" for e in (smaller, larger) if e is not None)
    hint = (
        f"Nearest multipliers that fit: {nearest}."
        if nearest
        else "No multiplier fits; leave this kind out with `pairs`, or convert the model to float32."
    )
    tensors = ", ".join(dict.fromkeys(slot.tensor for slot in pair.slots))
    return NoExactChannelError(
        f"Pair {pair.id} must have {options.channels} channels that 2^{exponent} ({options.direction}) scales exactly; "
        f"it has fewer in {tensors} (overflow, subnormals, zero channels or an offset). {hint}"
    )
