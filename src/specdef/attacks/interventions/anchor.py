"""Anchor: pull a published model back to the public base weights that it was made of.

Whoever holds the base weights subtracts them and sees what a defence did (arXiv 2606.30360): a difference of low rank,
for RR and RMU, or a change of variables, for a lock, which is divided out without any search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from specdef.attacks.base_weights import HoldsBase, open_base
from specdef.attacks.options import read_options
from specdef.attacks.rewriting import RewritePlan, Rewriting
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import SpecdefError


@dataclass(frozen=True)
class Anchor(HoldsBase, Rewriting):
    """Undo changes of variables against the base weights, then remove the leading components of what is left.

    Attributes:
        base: the base weights: a folder, a hub id or ``smollm2-135m``.
        rank: how many leading singular components are taken off each remaining difference; 0 undoes changes of
            variables only, ``all`` takes the base weights back.
        digest: of the base's weights; see `HoldsBase`.
    """

    name: ClassVar[str] = "anchor"
    knowledge: ClassVar[str] = "the public base weights that the model was made of"
    undoes: ClassVar[bool] = True
    needs_lock: ClassVar[bool] = True

    rank: int | Literal["all"] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (type(self.rank) is int and self.rank >= 0) or self.rank == "all":
            if not self.base and not self.digest:
                raise SpecdefError("`base` must be given with anchor: a model folder, a hub id or smollm2-135m.")
            return
        raise SpecdefError(f"`rank` must be a whole number of at least 0, or all; got {self.rank!r}.")

    @property
    def keeps_function(self) -> bool:  # type: ignore[override]
        """Changes of variables keep it; what is taken off the differences does not."""
        return self.rank == 0

    @property
    def label(self) -> str:
        """Short text for tables."""
        what = {0: "changes of variables undone", "all": "taken back"}
        removed = what.get(self.rank, f"{self.rank} leading components of the difference removed")
        return f"base weights {self.digest[:8] or self.base}, {removed}"

    def plan(self, checkpoint: Checkpoint, spool: Path) -> RewritePlan:
        """Compare every tensor with the base's, and plan what takes its place.

        Raises:
            SpecdefError: the base is missing, is of another model, or is what the model holds.
        """
        from specdef.attacks.rewrites.anchoring import plan_anchor

        return plan_anchor(checkpoint, open_base(self.base, self.digest), self.rank)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``base=FOLDER,rank=4`` or ``base=FOLDER,rank=all``.

        Raises:
            SpecdefError: not of that form.
        """
        parts = text.split(",")
        numbers = [part for part in parts if part != "rank=all"]
        found: Mapping[str, Any] = read_options(cls, ",".join(numbers))
        return cls.from_options({**found, "rank": "all"} if len(numbers) < len(parts) else found)


KIND = Anchor
