"""Which channels of a pair a fold lock scales: drawn in a seeded order, dead and inexact ones skipped.

They are drawn one by one, or in aligned runs as wide as the blocks in which a format keeps one scale.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from specdef.architectures.resolve import ResolvedPair, ResolvedSlot
from specdef.checkpoint.reader import Checkpoint
from specdef.core.dtypes import TORCH_NAMES
from specdef.errors import PlanError
from specdef.linalg.exponent import MAX_EXPONENT, scale_stored, to_float
from specdef.locks.edits import Locations
from specdef.locks.kinds.fold.options import FoldOptions
from specdef.locks.runtimes import block_of, smallest_weight
from specdef.locks.scaling import narrow_dtypes, signed_slots

FIRST_CANDIDATES, SPARE_CANDIDATES = 64, 3
"""Channels looked at before all of a pair's; of those, beyond the ones needed, the ones looked at first."""


class NoExactChannelError(PlanError):
    """A pair has too few channels that the factor scales exactly."""


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
    block, floor = block_of(options.runtimes), smallest_weight(options.runtimes)
    wanted, runs = options.channels // block, pair.size // block
    candidates = rng.sample(range(runs), min(runs, FIRST_CANDIDATES + wanted))
    signed = signed_slots(pair, options.direction, exponent)
    few = candidates[: wanted + SPARE_CANDIDATES]
    usable = usable_channels(checkpoint, where, signed, few, block, floor)
    if usable.sum() < wanted:
        few, usable = candidates, usable_channels(checkpoint, where, signed, candidates, block, floor)
    if usable.sum() < wanted and len(candidates) < runs:
        rest = sorted(set(range(runs)) - set(candidates))
        rng.shuffle(rest)
        few = candidates + rest
        usable = usable_channels(checkpoint, where, signed, few, block, floor)
    chosen = [run for run, fine in zip(few, usable, strict=True) if fine][:wanted]
    if len(chosen) < wanted:
        raise _too_few(checkpoint, where, pair, options, exponent, few)
    return tuple(sorted(i for run in chosen for i in _run(run, block)))


def usable_channels(
    checkpoint: Checkpoint,
    where: Locations,
    signed: Sequence[tuple[ResolvedSlot, int]],
    candidates: Sequence[int],
    block: int = 1,
    floor: float = 0.0,
) -> npt.NDArray[np.bool_]:
    """Which candidate runs of `block` channels are alive on both sides and exactly scalable in every slot."""
    usable, loaded_in = np.ones(len(candidates), dtype=bool), narrow_dtypes(checkpoint.config)
    for slot, exponent in signed:
        if not usable.any():
            break
        shard, tensor = where[slot.tensor]
        positions = np.array([sorted(i for c in _run(run, block) for i in slot.indices(c)) for run in candidates])
        values = np.take(checkpoint.map_tensor(shard, tensor), positions.reshape(-1), axis=slot.axis)
        _, exact = scale_stored(values, tensor.dtype, exponent, slot.offset, loaded_in)
        per_channel = np.moveaxis(exact, slot.axis, 0).reshape(len(candidates), -1)
        usable &= per_channel.all(axis=1)
        if len(tensor.shape) > 1:
            if floor and exponent < 0:
                usable &= _large_enough(
                    to_float(values, tensor.dtype), slot.axis, len(candidates), block, floor * 2.0**-exponent
                )
            alive = np.moveaxis(values != 0, slot.axis, 0).reshape(len(candidates), -1)
            usable &= alive.any(axis=1)
    return usable


def _large_enough(
    values: npt.NDArray[np.floating[Any]], axis: int, count: int, block: int, floor: float
) -> npt.NDArray[np.bool_]:
    """Which runs have, in every block of a matrix [out, in] that they touch, a weight of at least `floor`, or none."""
    sizes = np.abs(values)
    rows, columns = sizes.shape
    largest = sizes.reshape(rows, -1, block).max(axis=2) if columns % block == 0 else sizes.max(axis=1, keepdims=True)
    fine = (largest >= floor) | (largest == 0)
    per_run = fine.T if axis == 1 else fine
    return np.asarray(per_run.reshape(count, -1).all(axis=1))


def _run(number: int, block: int) -> range:
    """The channels of an aligned run."""
    return range(number * block, (number + 1) * block)


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
        block, floor = block_of(options.runtimes), smallest_weight(options.runtimes)
        usable = usable_channels(checkpoint, where, signed, candidates, block, floor)
        return bool(usable.sum() * block >= options.channels)

    smaller = next((e for e in range(exponent - 1, 0, -1) if fits(e)), None)
    larger = next((e for e in range(exponent + 1, MAX_EXPONENT + 1) if fits(e)), None)
    nearest = " and ".join(f"2^{e}" for e in (smaller, larger) if e is not None)
    hint = (
        f"Nearest multipliers that fit: {nearest}."
        if nearest
        else "No multiplier fits; leave this kind out with `pairs`, or convert the model to float32."
    )
    tensors = ", ".join(dict.fromkeys(slot.tensor for slot in pair.slots))
    stored = {where[slot.tensor][1].dtype for slot in pair.slots}
    others = [TORCH_NAMES[dtype] for dtype in narrow_dtypes(checkpoint.config) if {dtype} != stored]
    loaded = f", also as config.json has them loaded, in {' and '.join(map(str, others))}" if others else ""
    blocks = ", blocks whose own scale would lose digits" if smallest_weight(options.runtimes) else ""
    return NoExactChannelError(
        f"Pair {pair.id} must have {options.channels} channels that 2^{exponent} ({options.direction}) scales "
        f"exactly{loaded}; it has fewer in {tensors} (overflow, subnormals, zero channels{blocks} or an offset). {hint}"
    )
