"""Sharpen: a small spectral reparameterization as an attack on other defences (main paper, Appendix H).

A defence that slows training by a flat loss surface is undone by making it steeper, as long as training stays stable:
the lock's own construction with a small multiplier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from specdef.attacks.rewriting import RewritePlan, Rewriting
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import SpecdefError

_WIRE = {"rank": "top_k", "num_matrices": "matrices"}
"""Option -> its name in version 1 of an attack's JSON."""


@dataclass(frozen=True)
class Sharpen(Rewriting):
    """Inflate the largest singular values of some matrices by a small multiplier; compensated, so the function stays.

    Attributes:
        multiplier: alpha, above 1; the paper stays below what makes training diverge.
        rank: k, how many singular values.
        num_matrices: how many to draw.
        seed: of the draw.
    """

    name: ClassVar[str] = "sharpen"
    knowledge: ClassVar[str] = "the papers' own construction"
    frozen_wire: ClassVar[bool] = True

    multiplier: float = 4.0
    rank: int = 25
    num_matrices: int = 20
    seed: int = 0

    def plan(self, checkpoint: Checkpoint, spool: Path) -> RewritePlan:
        """Plan the deformations.

        Raises:
            SpecdefError: the folder holds injected layers already, or an option is out of range.
        """
        from specdef.locks.kinds.inject.options import InjectOptions
        from specdef.locks.kinds.inject.plan import inject_edits, locked_config, plan_inject
        from specdef.locks.matrices import choose_matrices
        from specdef.locks.recognise import resolve_locked

        if checkpoint.config.get("quantization_config"):
            raise SpecdefError(f"`model` must hold no injected layers; {checkpoint.folder} does. Merge them first.")
        model = resolve_locked(checkpoint)
        options = InjectOptions(
            multiplier=self.multiplier, rank=self.rank, num_matrices=self.num_matrices, seed=self.seed
        )
        names = choose_matrices(model, options, checkpoint.shapes)
        plan = plan_inject(checkpoint, model, options, names, spool)
        config = locked_config(checkpoint, plan)
        added = sum(layer.num_extra for layer in plan.layers)
        detail = f"{len(names)} matrices sharpened by {self.multiplier:g}"
        return RewritePlan(inject_edits(checkpoint, plan), config, len(names), added, detail)

    def to_wire(self) -> dict[str, Any]:
        """Version 1's field, with its names of the options."""
        written = super().to_wire()["rewrite"]
        options = {_WIRE.get(name, name): value for name, value in written["options"].items()}
        return {"rewrite": {**written, "options": options}}

    @classmethod
    def from_wire(cls, name: str, value: Any) -> Self | None:
        """Read version 1's field."""
        if name != "rewrite" or value["kind"] != cls.name:
            return None
        return cls.from_options(_renamed(value["options"]))


KIND = Sharpen


def _renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    names = {wire: name for name, wire in _WIRE.items()}
    return {names.get(name, name): value for name, value in options.items()}
