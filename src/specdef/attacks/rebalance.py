"""Rebalance: find channels whose two sides are scaled apart, and divide the factor out. The fold lock's undoing.

axis: cross-layer equalisation with powers of two, exact to the bit. svd: per key-value head, the balanced
factorisation of the product O V, which undoes any invertible map between the two, at rounding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import torch

from specdef.architectures.resolve import ResolvedModel, ResolvedPair, ResolvedSlot
from specdef.attacks.merge import tensor_bytes
from specdef.attacks.rewriting import RewritePlan
from specdef.checkpoint.reader import Checkpoint
from specdef.checkpoint.writer import NewTensor, ShardEdits
from specdef.errors import SpecdefError
from specdef.imbalance import Norms, channel_logs, deviation, opposite_deviation, threshold
from specdef.inspection import resolve_locked
from specdef.locks.fold import shard_edits
from specdef.locks.inject import TORCH_DTYPES, read_tensor
from specdef.locks.plan import Edit

FORMS = ("axis", "svd")


def plan_rebalance(checkpoint: Checkpoint, *, form: str = "axis") -> RewritePlan:
    """Undo channel scales between the weights of compensable pairs.

    Args:
        checkpoint: a published folder.
        form: ``axis`` (powers of two per channel, every kind of pair) or ``svd`` (v->o, any map within a head).

    Raises:
        SpecdefError: nothing stands out (axis), no v->o pair (svd), or an unknown form.
    """
    if form not in FORMS:
        raise SpecdefError(f"`form` must be one of {', '.join(FORMS)}; got {form!r}.")
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

    A pair's channels are compared with those of the same place in all layers, so that a pair scaled as a whole is
    found too. The estimated factor is the smaller of the two opposite deviations, rounded to a power of two.
    """
    logs = channel_logs(checkpoint, model.pairs)
    places: dict[str, list[int]] = {}
    for number, pair in enumerate(model.pairs):
        places.setdefault(_place(pair), []).append(number)
    edits: list[Edit] = []
    for numbers in places.values():
        sides = [np.concatenate([deviation(logs[n][side]) for n in numbers]) for side in (0, 1)]
        limit = threshold(*sides)
        centres = [np.array([_median(logs[n][side]) for n in numbers]) for side in (0, 1)]
        shifts = [_outliers(centre) for centre in centres]
        for at, number in enumerate(numbers):
            producer, consumer = (deviation(logs[number][side]) + shifts[side][at] for side in (0, 1))
            opposite = opposite_deviation(producer, consumer)
            exponents = np.where(opposite > limit, np.rint(opposite) * np.sign(producer), 0).astype(int)
            edits += _pair_edits(model.pairs[number], exponents)
    return edits


def _place(pair: ResolvedPair) -> str:
    return re.sub(r"\.\d+", "", pair.id, count=1)


def _median(logs: Norms) -> float:
    alive = logs[np.isfinite(logs)]
    return float(np.median(alive)) if len(alive) else 0.0


def _outliers(centres: Norms) -> Norms:
    """How far a pair's centre lies from the other layers', where that is beyond anything natural drift does."""
    spread = 1.4826 * float(np.median(np.abs(centres - np.median(centres))))
    away = centres - np.median(centres)
    return np.where(np.abs(away) > max(6.0, 5 * spread), away, 0.0)


def _pair_edits(pair: ResolvedPair, exponents: Norms) -> Iterator[Edit]:
    for exponent in sorted(set(exponents.tolist()) - {0}):
        channels = np.flatnonzero(exponents == exponent)
        signed = [(slot, -exponent) for slot in pair.producers]
        signed += [(slot, exponent * pair.degree) for slot in pair.consumers]
        for slot, power in signed:
            indices = tuple(sorted(i for channel in channels for i in slot.indices(int(channel))))
            yield Edit(slot.tensor, slot.axis, indices, power, slot.offset)


def _plan_svd(checkpoint: Checkpoint, model: ResolvedModel) -> RewritePlan:
    pairs = [pair for pair in model.pairs if pair.kind == "vo"]
    if not pairs:
        raise SpecdefError(
            f"`form` svd needs v->o pairs; the family {model.architecture.name} declares none. Use axis."
        )
    where = checkpoint.locate()
    replaced: dict[str, dict[str, NewTensor]] = {}
    for pair in pairs:
        cache: dict[str, torch.Tensor] = {}
        for slot in pair.slots:
            shard, tensor = where[slot.tensor]
            data = partial(_balanced_bytes, checkpoint, pair, model.dims.head_dim, slot.tensor, cache)
            replaced.setdefault(shard, {})[slot.tensor] = NewTensor(tensor.dtype, tensor.shape, data)
    edits = {shard: ShardEdits(replaced=new) for shard, new in replaced.items()}
    count = sum(len(new) for new in replaced.values())
    return RewritePlan(edits, None, count, 0, f"{len(pairs)} v->o products factored anew, head by head")


def _balanced_bytes(
    checkpoint: Checkpoint, pair: ResolvedPair, head_dim: int, name: str, cache: dict[str, torch.Tensor]
) -> bytes:
    if name not in cache:
        where = checkpoint.locate()
        stored = {slot.tensor: read_tensor(checkpoint, *where[slot.tensor]) for slot in pair.slots}
        wide = {tensor: value.double() for tensor, value in stored.items()}
        for first in range(0, pair.size, head_dim):
            balance_head(wide, pair.producers, pair.consumers, range(first, min(first + head_dim, pair.size)))
        cache.update({tensor: value.to(stored[tensor].dtype) for tensor, value in wide.items()})
    where_dtype = TORCH_DTYPES[checkpoint.locate()[name][1].dtype]
    return tensor_bytes(cache.pop(name).to(where_dtype))


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
    root = s.sqrt()
    _put(tensors, producers, channels, v_parts, (q_v @ wh.T * root).T)
    _put(tensors, consumers, channels, o_parts, (q_o @ u * root).T)


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
