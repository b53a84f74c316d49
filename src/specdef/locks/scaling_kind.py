"""Kinds of locks that scale channels by powers of two: what they have in common. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from specdef.locks.base import LockFacts, LockKind

if TYPE_CHECKING:
    from torch import nn

    from specdef.checkpoint.edits import ShardEdits
    from specdef.checkpoint.reader import Checkpoint
    from specdef.locks.key import Key


class ScalingLock(LockKind):
    """The key holds every scaling; a manifest's strength has the largest exponent."""

    def invert(self, checkpoint: Checkpoint, key: Key) -> dict[str, ShardEdits]:
        """See `LockKind`."""
        from specdef.locks.scaling import invert

        return invert(checkpoint, key)

    def facts(self, strength: Mapping[str, Any]) -> LockFacts:
        """See `LockKind`."""
        return LockFacts(2.0 ** strength["exponent"])

    def promise(self, exactness: Mapping[str, Any]) -> str:
        """See `LockKind`."""
        return (
            f"Its function is the original's ({exactness['closeness']}) in transformers. Other runtimes and formats "
            "are named below, by rule; `specdef verify DIR --runtime NAME` measures one."
        )

    def unlock_module(self, module: nn.Module, originals: Mapping[str, Any]) -> None:
        """See `LockKind`."""
        from specdef.locks.model_tensors import write_tensors

        write_tensors(module, originals)
