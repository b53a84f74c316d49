"""A model pulled back to the base weights it was made of: changes of variables undone, and less left of the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Literal

from specdef.attacks.rewrites.compared import ALL, Compared, Pair
from specdef.attacks.rewrites.differences import in_words
from specdef.attacks.rewriting import RewritePlan
from specdef.checkpoint.edits import NewTensor, edits_by_shard
from specdef.checkpoint.reader import Checkpoint
from specdef.core.text import counted
from specdef.errors import SpecdefError
from specdef.linalg.compensation import TENSOR_NAMES


def plan_anchor(checkpoint: Checkpoint, base: Checkpoint, rank: int | Literal["all"]) -> RewritePlan:
    """Undo what is a change of variables, and take `rank` leading components off every difference that is left.

    Args:
        checkpoint: the published folder.
        base: the public weights it was made of.
        rank: 0 leaves the differences as they are; ``all`` takes the base weights back.

    Raises:
        SpecdefError: the base is of another model, the folder is stored in a way that cannot be computed with, or
            every tensor is the base's already.
    """
    pair = Pair.of(checkpoint, base)
    found = pair.compared()
    if not found:
        raise SpecdefError(
            f"`base` must differ from the model; {base.folder} holds the weights of {checkpoint.folder}."
        )
    where = checkpoint.locate()
    replaced: dict[str, NewTensor] = {}
    for name, one in found.items():
        if one.left is None or rank != 0 or one.merged or one.channels:
            tensor = where[name][1]
            replaced[name] = NewTensor(tensor.dtype, tensor.shape, partial(pair.anchored, name, one, rank))
    dropped = [f"{module}.{part}" for module, entry in pair.modules.items() for part in TENSOR_NAMES[entry.form]]
    removed = sum(math.prod(where[name][1].shape) for name in dropped)
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    edits = edits_by_shard(checkpoint, replaced=replaced, dropped=dropped)
    detail = _words(found, len(pair.names), rank)
    return RewritePlan(edits, config if pair.modules else None, len(replaced), -removed, detail, pair.errors)


def _words(found: Mapping[str, Compared], tensors: int, rank: int | Literal["all"]) -> str:
    left = [one.left for one in found.values() if one.left is not None]
    channels, merged = sum(one.channels for one in found.values()), sum(one.merged for one in found.values())
    verb = "differs" if len(found) == 1 else "differ"
    alone = len(found) - len(left)
    parts = [f"{len(found)} of {tensors} tensors {verb} from the base, {alone} by a change of variables alone"]
    if channels or merged:
        parts.append(
            f"undone: {channels} rows, columns and entries scaled, {counted(merged, 'compensation')} multiplied in"
        )
    if not left:
        return "; ".join([*parts, "nothing else differs"])
    parts.append(f"{len(left)} {'differs' if len(left) == 1 else 'differ'} by more: {in_words(left)}")
    if rank == ALL:
        parts.append("the base weights taken back")
    elif rank:
        parts.append(f"{rank} leading {'component' if rank == 1 else 'components'} of each removed")
    return "; ".join(parts)
