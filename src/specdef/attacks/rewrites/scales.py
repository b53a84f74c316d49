"""Channels whose two sides are scaled apart: found from the weights, and scaled back by powers of two, exactly."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from specdef.architectures.channels import Norms, channel_logs, deviation, opposite_deviation, threshold
from specdef.architectures.resolve import ResolvedModel, ResolvedPair, ResolvedSlot
from specdef.attacks.rewriting import RewritePlan
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import SpecdefError
from specdef.linalg.exponent import to_float
from specdef.locks.edits import Edit, shard_edits
from specdef.locks.recognise import resolve_locked

SAMPLED_ROWS = 512
MOST_APART = 14.0
"""Powers of two by which the typical numbers of a pair's two sides may differ in an unlocked model."""


def plan_scales(checkpoint: Checkpoint) -> RewritePlan:
    """Scale back, by powers of two, every channel that stands out.

    Raises:
        SpecdefError: none does.
    """
    edits = scale_edits(checkpoint, resolve_locked(checkpoint))
    if not edits:
        raise SpecdefError(
            f"`model` must hold channels scaled apart on their two sides; none stands out in {checkpoint.folder}."
        )
    tensors = {edit.tensor for edit in edits}
    channels = sum(len(edit.indices) for edit in edits)
    detail = f"{channels} rows and columns scaled back by powers of two"
    return RewritePlan(shard_edits(edits, checkpoint.locate()), None, len(tensors), 0, detail)


def scale_edits(checkpoint: Checkpoint, model: ResolvedModel) -> list[Edit]:
    """The scalings that balance every channel that stands out; empty when none does.

    A channel is compared with the others of its place in all layers. A pair scaled as a whole shows in the sizes of its
    two sides' numbers. The estimated factor is the smaller of the two opposite deviations, rounded to a power of two.
    Pairs that touch a compensated or factored layer are left alone: its rows are not what the next layer reads.
    """
    pairs = plain_pairs(checkpoint, model)
    logs = channel_logs(checkpoint, pairs)
    places: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        places.setdefault(_place(pair), []).append(number)
    edits: list[Edit] = []
    typical = _Typical(checkpoint, pairs)
    for numbers in sorted(places.values(), key=lambda numbers: pairs[numbers[0]].kind != "norm"):
        limit = threshold(*(np.concatenate([deviation(logs[n][side]) for n in numbers]) for side in (0, 1)))
        for number in numbers:
            pair = pairs[number]
            apart = typical.apart(pair)
            shift = apart / 2 if abs(apart) > MOST_APART else 0.0
            producer, consumer = deviation(logs[number][0]) + shift, deviation(logs[number][1]) - shift
            opposite = opposite_deviation(producer, consumer)
            exponents = np.where(opposite > limit, np.rint(opposite) * np.sign(producer), 0).astype(int)
            edits += _pair_edits(pair, exponents)
            typical.scaled(pair, float(np.median(exponents)))
    return edits


def plain_pairs(checkpoint: Checkpoint, model: ResolvedModel) -> list[ResolvedPair]:
    """The pairs whose weights stand for themselves: no compensation or chain of factors in between."""
    quantization = checkpoint.config.get("quantization_config")
    listed = [quantization.get(key) for key in ("modules", "factored")] if isinstance(quantization, dict) else []
    modules = {name for part in listed if isinstance(part, dict) for name in part}
    return [pair for pair in model.pairs if all(slot.tensor.rpartition(".")[0] not in modules for slot in pair.slots)]


def _place(pair: ResolvedPair) -> str:
    return re.sub(r"\.\d+", "", pair.id, count=1)


class _Typical:
    """log2 of the median size of each tensor's numbers, which a few scaled rows or columns do not move.

    Norm pairs are asked first, through readers that produce for no other pair; what they were scaled by as a whole is
    remembered for the pairs those tensors belong to as well.
    """

    def __init__(self, checkpoint: Checkpoint, pairs: Sequence[ResolvedPair]) -> None:
        self._checkpoint, self._where = checkpoint, checkpoint.locate()
        self._produce = {slot.tensor for pair in pairs for slot in pair.producers}
        self._logs: dict[str, float] = {}

    def apart(self, pair: ResolvedPair) -> float:
        """How many powers of two the producers' numbers lie above the consumers'."""
        readers = [slot for slot in pair.consumers if slot.tensor not in self._produce] or list(pair.consumers)
        return self._of(pair.producers) - self._of(readers) / pair.degree

    def scaled(self, pair: ResolvedPair, exponent: float) -> None:
        """Remember that a pair's producers were divided by 2^exponent as a whole, and its consumers multiplied."""
        for slots, power in ((pair.producers, -exponent), (pair.consumers, exponent * pair.degree)):
            for slot in slots:
                self._logs[slot.tensor] = self._log(slot) + power

    def _of(self, slots: Sequence[ResolvedSlot]) -> float:
        weights = [slot for slot in slots if not slot.tensor.endswith(".bias")] or list(slots)
        return float(np.median([self._log(slot) for slot in weights]))

    def _log(self, slot: ResolvedSlot) -> float:
        if slot.tensor not in self._logs:
            shard, tensor = self._where[slot.tensor]
            rows = self._checkpoint.map_tensor(shard, tensor)
            sample = to_float(np.asarray(rows[:: max(1, len(rows) // SAMPLED_ROWS)]), tensor.dtype)
            sizes = np.abs(sample.astype(np.float64) + slot.offset)
            self._logs[slot.tensor] = math.log2(float(np.median(sizes[sizes > 0]))) if (sizes > 0).any() else 0.0
        return self._logs[slot.tensor]


def _pair_edits(pair: ResolvedPair, exponents: Norms) -> Iterator[Edit]:
    for exponent in sorted(set(exponents.tolist()) - {0}):
        channels = np.flatnonzero(exponents == exponent)
        signed = [(slot, -exponent) for slot in pair.producers]
        signed += [(slot, exponent * pair.degree) for slot in pair.consumers]
        for slot, power in signed:
            indices = tuple(sorted(i for channel in channels for i in slot.indices(int(channel))))
            yield Edit(slot.tensor, slot.axis, indices, power, slot.offset)
