"""Layer injection (main paper, Theorems 8 and 32): replace a deformed layer by more layers, each less deformed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from specdef.attacks.rewriting import RewritePlan, Rewriting
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import SpecdefError

MAX_FACTORS = 32


@dataclass(frozen=True)
class InjectLayers(Rewriting):
    """Replace every compensated layer by a chain of trainable factors.

    Attributes:
        factors: k, how many layers each of W~ (and, interleaved, C) gains.
        order: ``interleaved`` (C is factored too, and its factors stand between those of W~) or ``literal`` (as the
            proof of Theorem 32 has it).
        dtype: of the factors. The literal chain keeps C in its own dtype.
    """

    name: ClassVar[str] = "inject-layers"
    version: ClassVar[int] = 2
    knowledge: ClassVar[str] = (
        "which matrices are deformed (their spectra show it), and the singular value decomposition"
    )
    undoes: ClassVar[bool] = True
    needs_lock: ClassVar[bool] = True
    frozen_wire: ClassVar[bool] = True

    factors: int = 1
    order: Literal["interleaved", "literal"] = "interleaved"
    dtype: Literal["fp32", "bf16", "fp64"] = "fp32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.factors <= MAX_FACTORS:
            raise SpecdefError(f"`factors` must lie between 1 and {MAX_FACTORS}; got {self.factors}.")

    def plan(self, checkpoint: Checkpoint, spool: Path) -> RewritePlan:
        """Plan the chains.

        Raises:
            SpecdefError: the folder lists no compensated layers, or lists them wrongly.
        """
        from specdef.attacks.rewrites.factor_chain import plan_chains

        return plan_chains(checkpoint, factors=self.factors, order=self.order, dtype=self.dtype)


KIND = InjectLayers
