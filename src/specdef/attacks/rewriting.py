"""Interventions that rewrite weights and train nothing: a model folder in, a model folder out, no key.

Each kind plans edits from the structure and the numbers of the published folder alone, and is applied by the streaming
writer that locks are applied by.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from specdef.attacks.base import Intervention, RewriteReport
from specdef.checkpoint.edits import ShardEdits
from specdef.checkpoint.reader import Checkpoint, open_checkpoint
from specdef.checkpoint.small_files import changed_configs, changed_index, copy_others, write_files
from specdef.checkpoint.writer import write_shards
from specdef.core.folders import new_folder, refuse_target, scratch_folder
from specdef.locks.manifest import CARD, MANIFEST


@dataclass(frozen=True)
class RewritePlan:
    """What a rewriting changes.

    Attributes:
        edits: per shard.
        config: the new ``config.json``; None keeps it.
        tensors: how many tensors change.
        added_parameters: stored numbers the model gains (negative when it loses some).
        detail: what was found, in words.
        errors: relative difference of each rewritten layer from the published one, as stored; filled while the plan is
            written, and empty where the rewriting is exact or changes the function by design.
    """

    edits: Mapping[str, ShardEdits]
    config: Mapping[str, Any] | None
    tensors: int
    added_parameters: int
    detail: str
    errors: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Rewriting(Intervention, ABC):
    """An intervention that plans edits of a checkpoint; a kind overrides `plan`.

    Attributes:
        frozen_wire: whether it is one of the kinds that version 1 of an attack's JSON has the field ``rewrite`` for.
    """

    frozen_wire: ClassVar[bool] = False

    @abstractmethod
    def plan(self, checkpoint: Checkpoint, spool: Path) -> RewritePlan:
        """What to change.

        Args:
            checkpoint: a published folder, locked or not; nothing but it is used.
            spool: a scratch folder that lasts until the plan has been written.

        Raises:
            SpecdefError: there is nothing to work on, or an option does not fit the model.
        """

    def rewrite(self, folder: Path, out: Path) -> RewriteReport:
        """Write a rewritten copy of a model folder.

        Args:
            folder: a published model, locked or not.
            out: the folder to create.

        Raises:
            SpecdefError: there is nothing to work on, or a folder is not usable; nothing is left behind.
        """
        started = time.perf_counter()
        refuse_target(out, folder)
        checkpoint = open_checkpoint(folder, publishing=False)
        with scratch_folder(out.parent) as spool, new_folder(out, source=folder) as target:
            plan = self.plan(checkpoint, spool)
            _write(checkpoint, target, plan)
        return RewriteReport(
            kind=self.name,
            seconds=time.perf_counter() - started,
            tensors=plan.tensors,
            added_parameters=plan.added_parameters,
            detail=plan.detail,
            function_error=max(plan.errors, default=0.0) if self.keeps_function else None,
            knowledge=self.knowledge,
        )

    def to_wire(self) -> dict[str, Any]:
        """Version 1's field, where it has one for this kind."""
        if not self.frozen_wire:
            return super().to_wire()
        version = {"version": self.version} if self.version > 1 else {}
        return {"rewrite": {"kind": self.name, "options": self.options(), **version}}

    @classmethod
    def from_wire(cls, name: str, value: Any) -> Self | None:
        """Read version 1's field."""
        if name != "rewrite" or not cls.frozen_wire or value["kind"] != cls.name:
            return None
        return cls.from_options(value["options"])


def _write(checkpoint: Checkpoint, target: Path, plan: RewritePlan) -> None:
    files = dict(changed_index(checkpoint, plan.edits))
    if plan.config is not None:
        files |= changed_configs(checkpoint, plan.config)
    copy_others(checkpoint, target, skip=(MANIFEST, CARD, *files))
    write_files(target, files)
    write_shards(checkpoint, target, plan.edits)
