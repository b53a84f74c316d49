"""Rebalance: find channels whose two sides are scaled apart, and divide the factor out. The fold lock's undoing.

axis: cross-layer equalisation with powers of two, exact to the bit. svd: per key-value head, the balanced
factorisation of the product O V, which undoes any invertible map between the two, at rounding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from specdef.architectures.channels import Norms, channel_logs, deviation, opposite_deviation, threshold
from specdef.architectures.resolve import ResolvedModel, ResolvedPair, ResolvedSlot
from specdef.attacks.lazy_tensors import Together
from specdef.attacks.rewrites.apply import RewritePlan
from specdef.attacks.rewrites.merge import relative_difference
from specdef.checkpoint.edits import NewTensor, edits_by_shard
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import SpecdefError
from specdef.linalg.exponent import to_float
from specdef.locks.edits import Edit, shard_edits
from specdef.locks.kinds.inject.plan import read_tensor
from specdef.locks.recognise import resolve_locked

NUM_PROBES = 16
SAMPLED_ROWS = 512
MOST_APART = 14.0
"""Powers of two by which the typical numbers of a pair's two sides may differ in an unlocked model."""


def plan_rebalance(checkpoint: Checkpoint, *, form: str = "axis") -> RewritePlan:
    """Undo channel scales between the weights of compensable pairs.

    Args:
        checkpoint: a published folder.
        form: ``axis`` (powers of two per channel, every kind of pair) or ``svd`` (v->o, any map within a head).

    Raises:
        SpecdefError: nothing stands out (axis), or no v->o pair (svd).
    """
    model = resolve_locked(checkpoint)
    if form == "svd":
        return _plan_svd(checkpoint, model)
    edits = scale_edits(checkpoint, model)
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


def _plan_svd(checkpoint: Checkpoint, model: ResolvedModel) -> RewritePlan:
    pairs = [pair for pair in plain_pairs(checkpoint, model) if pair.kind == "vo"]
    if not pairs:
        raise SpecdefError(
            f"`form` svd needs v->o pairs; the family {model.architecture.name} declares none. Use axis."
        )
    where = checkpoint.locate()
    replaced: dict[str, NewTensor] = {}
    errors: list[float] = []
    for pair in pairs:
        names = list(dict.fromkeys(slot.tensor for slot in pair.slots))
        balanced = Together(partial(_balanced, checkpoint, pair, model.dims.head_dim, errors), names)
        for name in names:
            tensor = where[name][1]
            replaced[name] = NewTensor(tensor.dtype, tensor.shape, balanced.writer(name, tensor.dtype))
    edits = edits_by_shard(checkpoint, replaced=replaced)
    return RewritePlan(edits, None, len(replaced), 0, f"{len(pairs)} v->o products factored anew, head by head", errors)


def _balanced(
    checkpoint: Checkpoint, pair: ResolvedPair, head_dim: int, errors: list[float]
) -> dict[str, torch.Tensor]:
    where = checkpoint.locate()
    stored = {slot.tensor: read_tensor(checkpoint, *where[slot.tensor]) for slot in pair.slots}
    for name, tensor in stored.items():
        if not bool(tensor.isfinite().all()):
            raise SpecdefError(f"Weights must be finite; tensor {name} holds NaN or infinity.")
    wide = {name: value.double() for name, value in stored.items()}
    for first in range(0, pair.size, head_dim):
        head = range(first, min(first + head_dim, pair.size))
        before = _product(wide, pair, head)
        balance_head(wide, pair.producers, pair.consumers, head)
        rounded = {name: wide[name].to(tensor.dtype).double() for name, tensor in stored.items()}
        errors.append(relative_difference(_product(rounded, pair, head), before))
    return wide


def _product(tensors: dict[str, torch.Tensor], pair: ResolvedPair, head: range) -> torch.Tensor:
    """O V x of one head for a few random x: enough to tell how far two products are apart."""
    v, o = (
        torch.cat([_taken(tensors[slot.tensor], slot, head) for slot in slots], dim=1)
        for slots in (pair.producers, pair.consumers)
    )
    probe = torch.randn(v.shape[1], NUM_PROBES, generator=torch.Generator().manual_seed(0), dtype=v.dtype)
    return o.T @ (v @ probe)


def balance_head(
    tensors: dict[str, torch.Tensor],
    producers: Iterable[ResolvedSlot],
    consumers: Iterable[ResolvedSlot],
    channels: range,
) -> None:
    """Replace one head's V and O, in place, by the balanced factors of their product.

    Math: O V = Q_o (U S W^T) Q_v^T from the two triangular factors, then V' = S^(1/2) W^T Q_v^T and
    O' = Q_o U S^(1/2): the same product, and both factors have the singular values S^(1/2).

    Args:
        tensors: name -> float64 tensor, changed in place.
        producers: slots of V and, where there is one, its bias.
        consumers: slots of O.
        channels: the head's channels.
    """
    producers, consumers = list(producers), list(consumers)
    v_parts = [_taken(tensors[slot.tensor], slot, channels) for slot in producers]
    o_parts = [_taken(tensors[slot.tensor], slot, channels) for slot in consumers]
    v, o = (
        torch.cat(v_parts, dim=1),
        torch.cat(o_parts, dim=1),
    )  # [head, everything V reads], [head, everything O writes]
    q_v, r_v = torch.linalg.qr(v.T)
    q_o, r_o = torch.linalg.qr(o.T)
    u, s, wh = torch.linalg.svd(r_o @ r_v.T)
    root, rank = s.sqrt(), len(s)
    v_new, o_new = torch.zeros_like(v), torch.zeros_like(o)  # rows beyond the product's rank stay 0
    v_new[:rank] = (q_v @ wh[:rank].T * root).T
    o_new[:rank] = (q_o @ u[:, :rank] * root).T
    _put(tensors, producers, channels, v_parts, v_new)
    _put(tensors, consumers, channels, o_parts, o_new)


def _positions(slot: ResolvedSlot, channels: range) -> torch.Tensor:
    """[copies, channels]: where each channel lies along the slot's axis, once per copy (query heads of a group)."""
    return torch.tensor([list(slot.indices(channel)) for channel in channels]).T


def _taken(tensor: torch.Tensor, slot: ResolvedSlot, channels: range) -> torch.Tensor:
    """The channels of one slot as rows [channels, everything else], copies side by side."""
    rows = tensor.movedim(slot.axis, 0)
    return torch.cat([rows[at].reshape(len(channels), -1) for at in _positions(slot, channels)], dim=1)


def _put(
    tensors: dict[str, torch.Tensor],
    slots: list[ResolvedSlot],
    channels: range,
    parts: list[torch.Tensor],
    value: torch.Tensor,
) -> None:
    for slot, piece in zip(slots, value.split([part.shape[1] for part in parts], dim=1), strict=True):
        positions, rows = _positions(slot, channels), tensors[slot.tensor].movedim(slot.axis, 0)
        for at, copy in zip(positions, piece.chunk(len(positions), dim=1), strict=True):
            rows[at] = copy.reshape(len(channels), *rows.shape[1:])
