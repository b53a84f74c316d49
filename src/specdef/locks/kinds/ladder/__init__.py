"""The ladder lock: exact like the fold lock, with one large factor a pair, each of another size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.checkpoint.layout import is_pipeline
from specdef.errors import PlanError
from specdef.linalg.multiplier import exponent_of
from specdef.locks.base import Check, Evidence, ModuleLock, PreparedLock, Sign
from specdef.locks.kinds.ladder.options import LadderOptions
from specdef.locks.scaling_kind import ScalingLock
from specdef.locks.selection import check_pair_kinds, select_pairs

if TYPE_CHECKING:
    from torch import nn

    from specdef.architectures.resolve import ResolvedModel
    from specdef.checkpoint.reader import Checkpoint


class Ladder(ScalingLock):
    """Nothing is added to the model; every output keeps every bit. Planning runs the model once, forth and back."""

    name = "ladder"
    Options = LadderOptions

    def check_options(self, options: LadderOptions) -> None:
        """See `LockKind`."""
        exponent_of(options.multiplier)
        if options.pairs is not None:
            check_pair_kinds(options.pairs)
        if not 0 <= options.margin <= 30:
            raise PlanError(f"`margin` must lie between 0 and 30 powers of two; got {options.margin}.")

    def prepare(
        self, checkpoint: Checkpoint, model: ResolvedModel, options: LadderOptions, spool: Path
    ) -> PreparedLock:
        """See `LockKind`."""
        if is_pipeline(checkpoint.folder):
            raise PlanError(
                "`preset` must be exact for a pipeline: a ladder is planned on inputs of text or images alone; "
                f"{checkpoint.folder} is one."
            )
        pairs = select_pairs(model, options.pairs, options.layers)  # refused before anything heavy is imported
        from specdef.locks.kinds.ladder.prepare import prepare

        return prepare(checkpoint, pairs, options)

    def claims_hold(self, strength: Mapping[str, Any]) -> bool:
        """See `LockKind`."""
        from specdef.linalg.exponent import MAX_EXPONENT

        exponents = strength["exponents"]
        claimed = (
            [number for numbers in exponents.values() for number in numbers] if isinstance(exponents, dict) else []
        )
        return (
            bool(claimed)
            and all(type(number) is int and 1 <= abs(number) <= MAX_EXPONENT for number in claimed)
            and strength["exponent"] == max(map(abs, claimed))
            and strength["multiplier"] == f"2^{strength['exponent']}"
        )

    def check(self, checkpoint: Checkpoint, strength: Mapping[str, Any], original: Checkpoint | None) -> Check:
        """See `LockKind`."""
        from specdef.locks.kinds.ladder.check import check

        return check(checkpoint, strength, original)

    def recognise(self, evidence: Evidence) -> Sign | None:
        """See `LockKind`."""
        from specdef.locks.kinds.ladder.check import recognise

        return recognise(self.name, evidence)

    def lock_module(self, module: nn.Module, given: Mapping[str, Any]) -> ModuleLock:
        """See `LockKind`."""
        from specdef.locks.kinds.ladder.prepare import lock_module

        return lock_module(self.name, module, self.options(given))


KIND = Ladder()
