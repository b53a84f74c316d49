"""The powers of two between a model and its locked copy, channel by channel, read off both models' stored numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from specdef.architectures.resolve import ResolvedPair, ResolvedSlot
from specdef.checkpoint.blocks import row_blocks
from specdef.checkpoint.reader import Checkpoint
from specdef.linalg.exponent import MAX_EXPONENT, to_float

Exponents = npt.NDArray[np.int64]
Along = Callable[[str, int], Exponents | None]
"""(tensor, axis) -> exponents along it; None while they are unknown."""
UNKNOWN = np.iinfo(np.int64).min
"""Stands for a channel whose numbers are not the original's times one power of two."""
SILENT = UNKNOWN + 1
"""Stands for a channel of which every number so far is zero: it says nothing."""
WIDEST = 3 * MAX_EXPONENT
"""Largest power of two looked for: two pairs may cross, one of them of degree two."""
UNCOUNTED = 2 * WIDEST + 1
SAMPLE = 64
"""Numbers of a position that say which power of two to count."""


def channel_exponents(original: Checkpoint, locked: Checkpoint, pairs: Sequence[ResolvedPair]) -> dict[str, Exponents]:
    """The power of two by which the producers of every channel were scaled, read off both models' stored numbers.

    Where a scaled row crosses a scaled column of another pair both factors apply, so pairs are solved one after the
    other: first those with a slot that no unsolved pair crosses (a norm's weight has one axis only).

    Args:
        original: the unlocked model.
        locked: the model under test; same tensors and shapes.
        pairs: the resolved pairs of both.

    Returns:
        Pair id -> exponents [channels]; `UNKNOWN` where most of a channel's numbers are not scaled by one power of two
        on both sides, or where crossing pairs cannot be told apart.
    """
    reader = _RatioReader(original, locked)
    crossing: dict[tuple[str, int], list[tuple[ResolvedPair, ResolvedSlot, int]]] = {}
    for pair in pairs:
        for slot, sign in _signed_slots(pair):
            crossing.setdefault((slot.tensor, slot.axis), []).append((pair, slot, sign))
    solved: dict[str, Exponents] = {}

    def along(tensor: str, axis: int) -> Exponents | None:
        """Exponents along an axis, from the solved pairs that touch it; None while one of them is open."""
        total = np.zeros(original.shapes[tensor][axis], dtype=np.int64)
        for pair, slot, sign in crossing.get((tensor, axis), []):
            if pair.id not in solved:
                return None
            known = np.where(solved[pair.id] == UNKNOWN, 0, solved[pair.id])
            for channel in np.flatnonzero(known):
                total[list(slot.indices(int(channel)))] += sign * known[channel]
        return total

    open_pairs = list(pairs)
    while open_pairs:
        ready = [pair for pair in open_pairs if any(_crossings(s, original, along) for s, _ in _signed_slots(pair))]
        for pair in ready or open_pairs:
            solved[pair.id] = _solve(pair, reader, original, along) if ready else np.full(pair.size, UNKNOWN)
        open_pairs = [pair for pair in open_pairs if pair.id not in solved]
    return solved


def _signed_slots(pair: ResolvedPair) -> list[tuple[ResolvedSlot, int]]:
    return [(slot, 1) for slot in pair.producers] + [(slot, -pair.degree) for slot in pair.consumers]


def _crossings(slot: ResolvedSlot, original: Checkpoint, along: Along) -> dict[int, Exponents] | None:
    """Axis -> exponents of the other axes of a slot's tensor; None while one is unknown."""
    others = {axis: along(slot.tensor, axis) for axis in range(len(original.shapes[slot.tensor])) if axis != slot.axis}
    known = {axis: found for axis, found in others.items() if found is not None}
    return {-1: np.zeros(0, dtype=np.int64), **known} if len(known) == len(others) else None


def _solve(pair: ResolvedPair, reader: _RatioReader, original: Checkpoint, along: Along) -> Exponents:
    found = np.full(pair.size, SILENT)
    for slot, sign in _signed_slots(pair):
        others = _crossings(slot, original, along)
        if others is None:
            continue
        scaled = np.full(pair.size, UNKNOWN)
        positions = reader.exponents(slot, {axis: e for axis, e in others.items() if axis >= 0})
        for channel in range(pair.size):
            here = [int(e) for i in slot.indices(channel) if (e := positions[i]) is not None]
            if not here:
                scaled[channel] = found[channel]
            elif len(set(here)) == 1 and here[0] != UNKNOWN and here[0] % sign == 0:
                scaled[channel] = here[0] // sign
        found = np.where((found == SILENT) | (found == scaled), scaled, UNKNOWN)
    return np.where(found == SILENT, 0, found)


class _RatioReader:
    """Powers of two between the stored numbers of two checkpoints."""

    def __init__(self, original: Checkpoint, locked: Checkpoint) -> None:
        self._original, self._locked = original, locked
        self._before, self._after = original.locate(), locked.locate()

    def exponents(self, slot: ResolvedSlot, others: Mapping[int, Exponents]) -> list[int | None]:
        """Per position on the slot's axis, the power of two most of its numbers were scaled by, `others` taken out.

        None where every number is zero, `UNKNOWN` where no power of two holds for most of them. A few numbers of each
        position say which power to count; where that one does not hold for most, all are counted.
        """
        size = self._before[slot.tensor][1].shape[slot.axis]
        found, agree, alive = (np.zeros(size, dtype=np.int64) for _ in range(3))
        for number, (at, powers, nonzero) in enumerate(self._powers(slot, others)):
            if slot.axis == 0 or number == 0:
                few = np.zeros((len(at), UNCOUNTED), dtype=np.int64)
                _count(few, np.arange(len(at)), powers[:, :SAMPLE])
                found[at] = few.argmax(axis=1)
            agree[at] += np.count_nonzero(powers == found[at, None], axis=1)
            alive[at] += np.count_nonzero(nonzero, axis=1)
        unsettled = (alive > 0) & (2 * agree <= alive)
        if unsettled.any():
            counts = np.zeros((size, UNCOUNTED), dtype=np.int64)
            for at, powers, _ in self._powers(slot, others):
                _count(counts, at[unsettled[at]], powers[unsettled[at]])
            found[unsettled], agree[unsettled] = counts[unsettled].argmax(axis=1), counts[unsettled].max(axis=1)
        return [
            None if not a else int(f) - WIDEST if 2 * n > a else int(UNKNOWN)
            for a, f, n in zip(alive, found, agree, strict=True)
        ]

    def _powers(
        self, slot: ResolvedSlot, others: Mapping[int, Exponents]
    ) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.int32], npt.NDArray[np.bool_]]]:
        """Block by block: positions on the slot's axis; of their numbers the power of two plus `WIDEST`, or `UNCOUNTED`
        where they are no such multiples; which of the original's are not zero."""
        (shard, before), (locked_shard, after) = self._before[slot.tensor], self._after[slot.tensor]
        old, new = self._original.map_tensor(shard, before), self._locked.map_tensor(locked_shard, after)
        for rows in row_blocks(old):
            x, y = (to_float(np.asarray(v[rows]), t.dtype) for v, t in ((old, before), (new, after)))
            if slot.offset:
                x, y = (np.float32(slot.offset) + v.astype(np.float32) for v in (x, y))
            (mantissa, power), (mantissa_y, power_y) = np.frexp(x), np.frexp(y)
            power = power_y - power + np.int32(WIDEST)
            for axis, known in others.items():
                part = (known[rows] if axis == 0 else known).astype(np.int32)
                power -= part.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
            nonzero = x != 0
            counted = nonzero & (mantissa == mantissa_y) & (power >= 0) & (power < UNCOUNTED)
            power[~counted] = UNCOUNTED
            at = np.arange(rows.start, rows.stop) if slot.axis == 0 else np.arange(x.shape[slot.axis])
            lines = (np.moveaxis(v, slot.axis, 0).reshape(len(at), -1) for v in (power, nonzero))
            yield at, *lines


def _count(counts: npt.NDArray[np.int64], at: npt.NDArray[np.intp], powers: npt.NDArray[np.int32]) -> None:
    """Add how often each power of two holds to `counts` [positions, powers], for the positions `at`."""
    counted = powers < UNCOUNTED
    np.add.at(counts, (np.broadcast_to(at[:, None], powers.shape)[counted], powers[counted]), 1)
