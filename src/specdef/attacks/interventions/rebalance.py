"""Rebalance: find channels whose two sides are scaled apart, and divide the factor out.

axis: cross-layer equalisation with powers of two, exact to the bit. svd: per key-value head, the balanced
factorisation of the product O V, which undoes any invertible map between the two, at rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from specdef.attacks.rewriting import RewritePlan, Rewriting
from specdef.checkpoint.reader import Checkpoint


@dataclass(frozen=True)
class Rebalance(Rewriting):
    """Undo channel scales between the weights of compensable pairs.

    Attributes:
        form: ``axis`` (powers of two per channel, every kind of pair) or ``svd`` (v->o, any map within a head).
    """

    name: ClassVar[str] = "rebalance"
    knowledge: ClassVar[str] = (
        "which weights of the architecture feed which (public), and that channels may be rescaled there"
    )
    undoes: ClassVar[bool] = True
    needs_lock: ClassVar[bool] = True
    frozen_wire: ClassVar[bool] = True

    form: Literal["axis", "svd"] = "axis"

    def plan(self, checkpoint: Checkpoint, spool: Path) -> RewritePlan:
        """Plan the scalings.

        Raises:
            SpecdefError: nothing stands out (axis), or no v->o pair (svd).
        """
        if self.form == "svd":
            from specdef.attacks.rewrites.heads import plan_heads

            return plan_heads(checkpoint)
        from specdef.attacks.rewrites.scales import plan_scales

        return plan_scales(checkpoint)


KIND = Rebalance
