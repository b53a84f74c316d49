"""The two matrices of an attention head, factored anew: what stood between them is gone, their product stays."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch

from specdef.architectures.resolve import ResolvedPair, ResolvedSlot
from specdef.attacks.rewrites.compensated import relative_difference
from specdef.attacks.rewrites.lazy_tensors import Together
from specdef.attacks.rewrites.scales import plain_pairs
from specdef.attacks.rewriting import RewritePlan
from specdef.checkpoint.edits import NewTensor, edits_by_shard
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import SpecdefError
from specdef.locks.recognise import resolve_locked
from specdef.locks.replaced import read_tensor

NUM_PROBES = 16


def plan_heads(checkpoint: Checkpoint) -> RewritePlan:
    """Replace V and O of every head by the balanced factors of their product.

    Raises:
        SpecdefError: the family declares no v->o pair.
    """
    model = resolve_locked(checkpoint)
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
