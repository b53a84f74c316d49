"""Prune: zero the channels that look locked, and see what utility that costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from specdef.attacks.rewriting import RewritePlan, Rewriting
from specdef.checkpoint.edits import EditBlock, ShardEdits
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import SpecdefError
from specdef.linalg.exponent import Stored

if TYPE_CHECKING:
    from specdef.locks.edits import Edit


@dataclass(frozen=True)
class Prune(Rewriting):
    """Zero every row or column that stands out as scaled up. The function changes; step 0 says by how much."""

    name: ClassVar[str] = "prune"
    knowledge: ClassVar[str] = "which weights of the architecture feed which (public)"
    keeps_function: ClassVar[bool] = False
    needs_lock: ClassVar[bool] = True
    frozen_wire: ClassVar[bool] = True

    def plan(self, checkpoint: Checkpoint, spool: Path) -> RewritePlan:
        """Plan the zeros.

        Raises:
            SpecdefError: nothing stands out.
        """
        from specdef.attacks.rewrites.scales import scale_edits
        from specdef.locks.recognise import resolve_locked

        edits = [edit for edit in scale_edits(checkpoint, resolve_locked(checkpoint)) if edit.exponent < 0]
        if not edits:
            raise SpecdefError(
                f"`model` must hold channels that look scaled up; none stands out in {checkpoint.folder}."
            )
        where = checkpoint.locate()
        blocks: dict[str, dict[str, EditBlock]] = {}
        grouped: dict[str, list[Edit]] = {}
        for edit in edits:
            grouped.setdefault(edit.tensor, []).append(edit)
        for name, found in grouped.items():
            blocks.setdefault(where[name][0], {})[name] = _zeroing(found)
        rows = sum(len(edit.indices) for edit in edits)
        shards = {shard: ShardEdits(blocks=tensors) for shard, tensors in blocks.items()}
        return RewritePlan(shards, None, len(grouped), 0, f"{rows} rows and columns set to zero")


KIND = Prune


def _zeroing(edits: list[Edit]) -> EditBlock:
    def zero(block: Stored, first: int) -> None:
        for edit in edits:
            if edit.axis == 0:
                at = [index - first for index in edit.indices if first <= index < first + len(block)]
            else:
                at = list(edit.indices)
            block[(slice(None),) * edit.axis + (at,)] = 0

    return zero
