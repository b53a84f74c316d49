"""Channel scales across compensable pairs, and the channels that look locked; weights only, each tensor read once.

A fold lock multiplies a producer channel and divides its consumers by the same power of two. Natural outlier channels
are large (or small) on one side only, so the evidence used is the smaller of the two opposite deviations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from specdef.architectures.resolve import ResolvedPair, ResolvedSlot
from specdef.checkpoint.header import TensorInfo
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import CheckpointError
from specdef.linalg.exponent import MAX_EXPONENT, NUMPY_DTYPES, to_float

Norms = npt.NDArray[np.float64]
BLOCK_ROWS = 512
MIN_BITS = 2.5
"""Opposite deviations below this many powers of two on each side are ordinary."""
SPREAD_FACTOR = 5.0
"""... and so are those within this many robust standard deviations of the pair's own channels."""


@dataclass(frozen=True)
class ScaledChannel:
    """A channel whose two sides deviate in opposite directions.

    Attributes:
        channel: its number in the pair.
        exponent: estimated power of two by which the producer was scaled (negative: down).
        producer_bits: log2 of the producer's norm over the pair's median.
        consumer_bits: the same for the consumers.
    """

    channel: int
    exponent: int
    producer_bits: float
    consumer_bits: float


@dataclass(frozen=True)
class PairImbalance:
    """One pair's channel scales.

    Attributes:
        id: the pair.
        layer: its layer, None for the final norm.
        spread: robust standard deviation of log2(producer norm / consumer norm) over channels.
        largest: the largest opposite deviation, in powers of two.
        threshold: the opposite deviation from which on a channel stands out among the pair's own.
        scaled: channels that look scaled, strongest first.
    """

    id: str
    kind: str
    layer: int | None
    spread: float
    largest: float
    threshold: float
    scaled: tuple[ScaledChannel, ...]


def pair_imbalances(
    checkpoint: Checkpoint, pairs: Iterable[ResolvedPair], *, progress: Callable[[], None] | None = None
) -> list[PairImbalance]:
    """Channel scales of every pair of a checkpoint.

    Args:
        checkpoint: an opened model folder.
        pairs: its resolved pairs.
        progress: called after each pair.
    """
    reader = _NormReader(checkpoint)
    results = []
    for pair in pairs:
        results.append(_imbalance(pair, reader))
        if progress is not None:
            progress()
    return results


def channel_logs(checkpoint: Checkpoint, pairs: Iterable[ResolvedPair]) -> list[tuple[Norms, Norms]]:
    """log2 of every channel's norm, per pair: of the producers, and of the consumers over the pair's degree.

    Dead channels are -inf.
    """
    reader = _NormReader(checkpoint)
    return [
        (_logs(reader.channels(pair, pair.producers)), _logs(reader.channels(pair, pair.consumers)) / pair.degree)
        for pair in pairs
    ]


def opposite_deviation(producer: Norms, consumer: Norms) -> Norms:
    """How far a channel's two sides deviate in opposite directions, in powers of two: the smaller of the two."""
    return np.where(producer * consumer < 0, np.minimum(np.abs(producer), np.abs(consumer)), 0.0)


def threshold(producer: Norms, consumer: Norms) -> float:
    """The opposite deviation above which a channel stands out among `producer` and `consumer`."""
    return max(MIN_BITS, SPREAD_FACTOR * max(_robust_std(producer), _robust_std(consumer)))


def _imbalance(pair: ResolvedPair, reader: _NormReader) -> PairImbalance:
    producer = deviation(_logs(reader.channels(pair, pair.producers)))
    consumer = deviation(_logs(reader.channels(pair, pair.consumers))) / pair.degree
    opposite = opposite_deviation(producer, consumer)
    needed = threshold(producer, consumer)
    suspicious = np.flatnonzero(opposite > needed)
    order = suspicious[np.argsort(-opposite[suspicious], kind="stable")]
    scaled = tuple(
        ScaledChannel(
            channel=int(c),
            exponent=round(float(producer[c] - consumer[c]) / 2),
            producer_bits=float(producer[c]),
            consumer_bits=float(consumer[c]),
        )
        for c in order
    )
    return PairImbalance(
        pair.id, pair.kind, pair.layer, _robust_std(producer - consumer), float(opposite.max()), needed, scaled
    )


def _logs(squared_norms: Norms) -> Norms:
    with np.errstate(divide="ignore"):
        return 0.5 * np.log2(squared_norms)


def deviation(logs: Norms) -> Norms:
    """log2 norms less their median; dead channels deviate by nothing."""
    alive = logs[np.isfinite(logs)]
    median = np.median(alive) if len(alive) else 0.0
    return np.where(np.isfinite(logs), logs - median, 0.0)


def _robust_std(values: Norms) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


Exponents = npt.NDArray[np.int64]
UNKNOWN = np.iinfo(np.int64).min
"""Stands for a channel whose numbers are not the original's times one power of two."""
WIDEST = 3 * MAX_EXPONENT
"""Largest power of two looked for: two pairs may cross, one of them of degree two."""


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


Along = Callable[[str, int], "Exponents | None"]


def _signed_slots(pair: ResolvedPair) -> list[tuple[ResolvedSlot, int]]:
    return [(slot, 1) for slot in pair.producers] + [(slot, -pair.degree) for slot in pair.consumers]


def _crossings(slot: ResolvedSlot, original: Checkpoint, along: Along) -> dict[int, Exponents] | None:
    """Axis -> exponents of the other axes of a slot's tensor; None while one is unknown."""
    others = {axis: along(slot.tensor, axis) for axis in range(len(original.shapes[slot.tensor])) if axis != slot.axis}
    known = {axis: found for axis, found in others.items() if found is not None}
    return {-1: np.zeros(0, dtype=np.int64), **known} if len(known) == len(others) else None


def _solve(pair: ResolvedPair, reader: _RatioReader, original: Checkpoint, along: Along) -> Exponents:
    found: Exponents | None = None
    for slot, sign in _signed_slots(pair):
        others = _crossings(slot, original, along)
        if others is None:
            continue
        scaled = np.full(pair.size, UNKNOWN)
        positions = reader.exponents(slot, {axis: e for axis, e in others.items() if axis >= 0})
        for channel in range(pair.size):
            here = [int(e) for i in slot.indices(channel) if (e := positions[i]) is not None]
            if not here:
                scaled[channel] = 0 if found is None else found[channel]  # all zero here: says nothing
            elif len(set(here)) == 1 and here[0] != UNKNOWN and here[0] % sign == 0:
                scaled[channel] = here[0] // sign
        found = scaled if found is None else np.where(found == scaled, found, UNKNOWN)
    assert found is not None
    return found


class _RatioReader:
    """Powers of two between the stored numbers of two checkpoints."""

    def __init__(self, original: Checkpoint, locked: Checkpoint) -> None:
        self._original, self._locked = original, locked
        self._before, self._after = original.locate(), locked.locate()

    def exponents(self, slot: ResolvedSlot, others: Mapping[int, Exponents]) -> list[int | None]:
        """Per position on the slot's axis, the power of two most of its numbers were scaled by, `others` taken out.

        None where every number is zero, `UNKNOWN` where no power of two holds for most of them.
        """
        (shard, before), (locked_shard, after) = self._before[slot.tensor], self._after[slot.tensor]
        old, new = self._original.map_tensor(shard, before), self._locked.map_tensor(locked_shard, after)
        size = before.shape[slot.axis]
        counts = np.zeros((size, 2 * WIDEST + 1), dtype=np.int64)
        alive = np.zeros(size, dtype=np.int64)
        for first in range(0, len(old), BLOCK_ROWS):
            rows = slice(first, first + BLOCK_ROWS)
            x, y = (to_float(np.asarray(v[rows]), t.dtype) for v, t in ((old, before), (new, after)))
            if slot.offset:
                x, y = (np.float32(slot.offset) + v.astype(np.float32) for v in (x, y))
            (mantissa, power), (mantissa_y, power_y) = np.frexp(x), np.frexp(y)
            ratio = power_y.astype(np.int64) - power
            for axis, known in others.items():
                part = known[rows] if axis == 0 else known
                ratio -= part.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
            lines = np.moveaxis(ratio, slot.axis, 0).reshape(x.shape[slot.axis], -1)
            nonzero = np.moveaxis(x != 0, slot.axis, 0).reshape(lines.shape)
            exact = np.moveaxis(mantissa == mantissa_y, slot.axis, 0).reshape(lines.shape)
            counted = nonzero & exact & (np.abs(lines) <= WIDEST)
            at = np.arange(len(lines)) + (first if slot.axis == 0 else 0)
            np.add.at(counts, (np.broadcast_to(at[:, None], lines.shape)[counted], lines[counted] + WIDEST), 1)
            alive[at] += nonzero.sum(axis=1)
        best = counts.argmax(axis=1)
        agreed = 2 * counts[np.arange(size), best] > alive
        return [
            None if not a else int(b) - WIDEST if k else int(UNKNOWN)
            for a, b, k in zip(alive, best, agreed, strict=True)
        ]


class _NormReader:
    """Squared norms along axes of tensors, each tensor read once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._where = checkpoint.locate()
        self._cache: dict[str, tuple[Norms, ...]] = {}

    def channels(self, pair: ResolvedPair, slots: tuple[ResolvedSlot, ...]) -> Norms:
        """Squared norm of every channel over the weight slots (biases only where there is nothing else)."""
        weights = [s for s in slots if not s.tensor.endswith(".bias")] or list(slots)
        total = np.zeros(pair.size)
        for slot in weights:
            along = self._norms(slot)[slot.axis]
            positions = np.array([list(slot.indices(c)) for c in range(pair.size)])
            total += along[positions].sum(axis=1)
        return total

    def _norms(self, slot: ResolvedSlot) -> tuple[Norms, ...]:
        if slot.tensor not in self._cache:
            shard, tensor = self._where[slot.tensor]
            self._cache[slot.tensor] = squared_norms(self._checkpoint, shard, tensor, slot.offset)
        return self._cache[slot.tensor]


def squared_norms(checkpoint: Checkpoint, shard: str, tensor: TensorInfo, offset: float = 0.0) -> tuple[Norms, ...]:
    """Sum of squares over all other axes, for each axis of a tensor, in float64."""
    if tensor.dtype not in NUMPY_DTYPES:
        raise CheckpointError(
            f"Tensor {tensor.name} of file {shard} is stored as {tensor.dtype}; only floating-point weights of 16 bits "
            "and more can be measured. Give the unquantised model."
        )
    values = checkpoint.map_tensor(shard, tensor)
    sums = [np.zeros(n) for n in tensor.shape]
    for first in range(0, len(values), BLOCK_ROWS):
        block = to_float(np.asarray(values[first : first + BLOCK_ROWS]), tensor.dtype).astype(np.float64) + offset
        squares = np.square(block)
        sums[0][first : first + len(block)] = squares.reshape(len(block), -1).sum(axis=1)
        for axis in range(1, squares.ndim):
            sums[axis] += squares.sum(axis=tuple(a for a in range(squares.ndim) if a != axis))
    if not np.isfinite(sums[0]).all():
        raise CheckpointError(f"Weights must be finite; tensor {tensor.name} of file {shard} holds NaN or infinity.")
    return tuple(sums)
