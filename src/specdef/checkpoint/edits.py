"""What changes in the shards of a checkpoint, as data: blocks edited in place, tensors replaced, added or left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from specdef.checkpoint.reader import Checkpoint
from specdef.linalg.exponent import Stored

EditBlock = Callable[[Stored, int], None]
"""Edit a block of a tensor's rows in place; the second argument is the number of the block's first row."""


@dataclass(frozen=True)
class NewTensor:
    """A whole tensor's new content, produced only when its turn to be written comes."""

    dtype: str
    shape: tuple[int, ...]
    data: Callable[[], bytes]


@dataclass(frozen=True)
class ShardEdits:
    """What changes in one shard.

    Attributes:
        blocks: tensor name -> edit applied to its blocks of rows, shape and dtype kept.
        replaced: tensor name -> new content under the same name.
        added: name -> tensor appended after the others.
        dropped: names left out.
        header: exact header bytes to write (unlock restores the original's); computed when None.
    """

    blocks: Mapping[str, EditBlock] = field(default_factory=dict)
    replaced: Mapping[str, NewTensor] = field(default_factory=dict)
    added: Mapping[str, NewTensor] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    header: bytes | None = None


def edits_by_shard(
    checkpoint: Checkpoint,
    *,
    replaced: Mapping[str, NewTensor],
    added: Mapping[str, Mapping[str, NewTensor]] | None = None,
    dropped: Iterable[str] = (),
) -> dict[str, ShardEdits]:
    """Whole-tensor changes, sorted by the shard they fall in.

    Args:
        checkpoint: where the tensors lie.
        replaced: tensor name -> new content.
        added: tensor name -> new tensors by name, written to the same shard.
        dropped: names left out.
    """
    shard_of = {name: shard for name, (shard, _) in checkpoint.locate().items()}
    sorted_replaced: dict[str, dict[str, NewTensor]] = defaultdict(dict)
    sorted_added: dict[str, dict[str, NewTensor]] = defaultdict(dict)
    sorted_dropped: dict[str, set[str]] = defaultdict(set)
    for name, tensor in replaced.items():
        sorted_replaced[shard_of[name]][name] = tensor
    for neighbour, tensors in (added or {}).items():
        sorted_added[shard_of[neighbour]].update(tensors)
    for name in dropped:
        sorted_dropped[shard_of[name]].add(name)
    shards = [shard for shard in checkpoint.shards if shard in {*sorted_replaced, *sorted_added, *sorted_dropped}]
    return {
        shard: ShardEdits(
            replaced=sorted_replaced[shard], added=sorted_added[shard], dropped=frozenset(sorted_dropped[shard])
        )
        for shard in shards
    }
