"""The fold lock: power-of-two factors on matched channels, undone in the layer that already follows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.errors import PlanError
from specdef.linalg.multiplier import exponent_of
from specdef.locks.base import Check, Evidence, ModuleLock, PreparedLock, Sign
from specdef.locks.kinds.fold.options import FoldOptions
from specdef.locks.runtimes import check_runtimes
from specdef.locks.scaling_kind import ScalingLock
from specdef.locks.selection import check_pair_kinds

if TYPE_CHECKING:
    from torch import nn

    from specdef.architectures.resolve import ResolvedModel
    from specdef.checkpoint.reader import Checkpoint


class Fold(ScalingLock):
    """Nothing is added to the model; every output keeps every bit."""

    name = "fold"
    Options = FoldOptions

    def check_options(self, options: FoldOptions) -> None:
        """See `LockKind`."""
        exponent_of(options.multiplier)
        if options.pairs is not None:
            check_pair_kinds(options.pairs)
        if options.direction not in ("up", "down"):
            raise PlanError(f"`direction` must be up or down; got {options.direction!r}.")
        if options.channels < 1:
            raise PlanError(f"`channels` must be at least 1; got {options.channels}.")
        check_runtimes(options.runtimes)
        if options.num_layers is not None and options.num_layers < 1:
            raise PlanError(f"`num_layers` must be at least 1; got {options.num_layers}.")

    def prepare(self, checkpoint: Checkpoint, model: ResolvedModel, options: FoldOptions, spool: Path) -> PreparedLock:
        """See `LockKind`."""
        from specdef.locks.kinds.fold.plan import prepare

        return prepare(checkpoint, model, options)

    def reach(self, checkpoint: Checkpoint, model: ResolvedModel, options: FoldOptions) -> dict[str, int]:
        """Pairs, by kind; see `LockKind`."""
        from specdef.locks.kinds.fold.plan import prepare

        pairs = prepare(checkpoint, model, options).strength["pairs"]
        return {f"{kind} pairs": number for kind, number in pairs.items()}

    def claims_hold(self, strength: Mapping[str, Any]) -> bool:
        """See `LockKind`."""
        from specdef.linalg.exponent import MAX_EXPONENT

        exponent, channels, pairs = strength["exponent"], strength["channels_per_pair"], strength["pairs"]
        counts = list(pairs.values()) if isinstance(pairs, dict) else []
        return (
            bool(counts)
            and all(type(number) is int and number >= 1 for number in (exponent, channels, *counts))
            and exponent <= MAX_EXPONENT
            and strength["direction"] in ("up", "down")
            and strength["multiplier"] == f"2^{exponent}"
        )

    def check(self, checkpoint: Checkpoint, strength: Mapping[str, Any], original: Checkpoint | None) -> Check:
        """See `LockKind`."""
        from specdef.locks.kinds.fold.check import check

        return check(checkpoint, strength, original)

    def recognise(self, evidence: Evidence) -> Sign | None:
        """See `LockKind`."""
        from specdef.locks.kinds.fold.check import recognise

        return recognise(self.name, evidence)

    def lock_module(self, module: nn.Module, given: Mapping[str, Any]) -> ModuleLock:
        """See `LockKind`."""
        from specdef.locks.kinds.fold.memory import lock_module

        return lock_module(self.name, module, self.options(given))


KIND = Fold()
