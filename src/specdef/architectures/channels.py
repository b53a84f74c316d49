"""Channel scales across compensable pairs, and the channels that look locked; weights only, each tensor read once.

A fold lock multiplies a producer channel and divides its consumers by the same power of two. Natural outlier channels
are large (or small) on one side only, so the evidence used is the smaller of the two opposite deviations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from specdef.architectures.resolve import ResolvedPair, ResolvedSlot
from specdef.checkpoint.blocks import row_blocks
from specdef.checkpoint.header import TensorInfo
from specdef.checkpoint.reader import Checkpoint
from specdef.core.threads import in_threads
from specdef.errors import CheckpointError
from specdef.linalg.exponent import NUMPY_DTYPES, to_float

Norms = npt.NDArray[np.float64]
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
    results = []
    for pair, producer, consumer in _logs_of(checkpoint, list(pairs)):
        results.append(_imbalance(pair, deviation(producer), deviation(consumer)))
        if progress is not None:
            progress()
    return results


def channel_logs(checkpoint: Checkpoint, pairs: Iterable[ResolvedPair]) -> list[tuple[Norms, Norms]]:
    """log2 of every channel's norm, per pair: of the producers, and of the consumers over the pair's degree.

    Dead channels are -inf.
    """
    return [(producer, consumer) for _, producer, consumer in _logs_of(checkpoint, list(pairs))]


def opposite_deviation(producer: Norms, consumer: Norms) -> Norms:
    """How far a channel's two sides deviate in opposite directions, in powers of two: the smaller of the two."""
    return np.where(producer * consumer < 0, np.minimum(np.abs(producer), np.abs(consumer)), 0.0)


def threshold(producer: Norms, consumer: Norms) -> float:
    """The opposite deviation above which a channel stands out among `producer` and `consumer`."""
    return max(MIN_BITS, SPREAD_FACTOR * max(_robust_std(producer), _robust_std(consumer)))


def _imbalance(pair: ResolvedPair, producer: Norms, consumer: Norms) -> PairImbalance:
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


def _logs_of(checkpoint: Checkpoint, pairs: Sequence[ResolvedPair]) -> Iterator[tuple[ResolvedPair, Norms, Norms]]:
    """Each pair with what `channel_logs` says of it; each tensor is read once, two at a time."""
    where = checkpoint.locate()
    sides = [side for pair in pairs for side in (pair.producers, pair.consumers)]
    slots = {slot.tensor: slot for side in sides for slot in _weights(side)}
    reading = {name: partial(squared_norms, checkpoint, *where[name], slot.offset) for name, slot in slots.items()}
    with in_threads(2, reading) as norms:

        def logs(pair: ResolvedPair, side: Sequence[ResolvedSlot]) -> Norms:
            total = np.zeros(pair.size)
            for slot in _weights(side):
                along = norms[slot.tensor].result()[slot.axis]
                positions = np.array([list(slot.indices(channel)) for channel in range(pair.size)])
                total += along[positions].sum(axis=1)
            return _logs(total)

        for pair in pairs:
            yield pair, logs(pair, pair.producers), logs(pair, pair.consumers) / pair.degree


def _weights(slots: Sequence[ResolvedSlot]) -> Sequence[ResolvedSlot]:
    """Weights, and biases only where there is nothing else."""
    return [slot for slot in slots if not slot.tensor.endswith(".bias")] or slots


def squared_norms(checkpoint: Checkpoint, shard: str, tensor: TensorInfo, offset: float = 0.0) -> tuple[Norms, ...]:
    """Sum of squares over all other axes, for each axis of a tensor, in float64."""
    if tensor.dtype not in NUMPY_DTYPES:
        raise CheckpointError(
            f"Tensor {tensor.name} of file {shard} is stored as {tensor.dtype}; only floating-point weights of 16 bits "
            "and more can be measured. Give the unquantised model."
        )
    values = checkpoint.map_tensor(shard, tensor)
    sums = [np.zeros(n) for n in tensor.shape]
    for rows in row_blocks(values):
        block = to_float(np.asarray(values[rows]), tensor.dtype).astype(np.float64)
        if offset:
            block += offset
        squares = np.square(block, out=block)
        sums[0][rows] = squares.reshape(len(squares), -1).sum(axis=1)
        for axis in range(1, squares.ndim):
            sums[axis] += squares.sum(axis=tuple(a for a in range(squares.ndim) if a != axis))
    if not np.isfinite(sums[0]).all():
        raise CheckpointError(f"Weights must be finite; tensor {tensor.name} of file {shard} holds NaN or infinity.")
    return tuple(sums)
