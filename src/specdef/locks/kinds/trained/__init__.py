"""The trained lock: the workshop paper's Algorithm 1, singular values raised by training. It is not exact."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from specdef.errors import PlanError
from specdef.locks.base import Check, Evidence, LockFacts, LockKind, ModuleLock, PreparedLock, Sign
from specdef.locks.kinds.trained.options import TrainedOptions

if TYPE_CHECKING:
    from torch import nn

    from specdef.architectures.resolve import ResolvedModel
    from specdef.checkpoint.edits import ShardEdits
    from specdef.checkpoint.reader import Checkpoint
    from specdef.locks.key import Key
    from specdef.models.equivalence import Equivalence

RETAIN = ("kl", "loss", "both")


class Trained(LockKind):
    """Nothing is added to the model, which loads anywhere. Its function moves; the key holds the original weights."""

    name = "trained"
    Options = TrainedOptions
    keeps_function: ClassVar[bool] = False

    def check_options(self, options: TrainedOptions) -> None:
        """See `LockKind`."""
        o = options
        _require(1 < o.multiplier < math.inf, "multiplier", "be a finite number above 1", o.multiplier)
        for name in ("rank", "steps", "batch_size", "eval_every"):
            _require(getattr(o, name) >= 1, name, "be at least 1", getattr(o, name))
        _require(o.num_matrices is None or o.num_matrices >= 1, "num_matrices", "be at least 1", o.num_matrices)
        _require(o.retain in RETAIN, "retain", f"be one of {', '.join(RETAIN)}", o.retain)
        _require(0 < o.retain_weight < 1, "retain_weight", "lie between 0 and 1", o.retain_weight)
        _require(0 < o.lr < math.inf, "lr", "be a number above 0", o.lr)
        _require(1 < o.utility_factor < math.inf, "utility_factor", "be above 1", o.utility_factor)

    def prepare(
        self, checkpoint: Checkpoint, model: ResolvedModel, options: TrainedOptions, spool: Path
    ) -> PreparedLock:
        """See `LockKind`."""
        from specdef.locks.kinds.trained.prepare import prepare

        return prepare(checkpoint, model, options)

    def claims_hold(self, strength: Mapping[str, Any]) -> bool:
        """See `LockKind`."""
        from specdef.locks.kinds.trained.check import claims_hold

        return claims_hold(strength)

    def check(self, checkpoint: Checkpoint, strength: Mapping[str, Any], original: Checkpoint | None) -> Check:
        """See `LockKind`."""
        from specdef.locks.kinds.trained.check import check

        return check(checkpoint, strength, original)

    def function(self, found: Equivalence, exactness: Mapping[str, Any]) -> Check:
        """See `LockKind`."""
        from specdef.locks.kinds.trained.check import function

        return function(found, exactness)

    def recognise(self, evidence: Evidence) -> Sign | None:
        """See `LockKind`."""
        from specdef.locks.kinds.trained.check import recognise

        return recognise(self.name, evidence)

    def invert(self, checkpoint: Checkpoint, key: Key) -> dict[str, ShardEdits]:
        """See `LockKind`."""
        from specdef.locks.replaced import invert

        return invert(checkpoint, key)

    def facts(self, strength: Mapping[str, Any]) -> LockFacts:
        """See `LockKind`."""
        return LockFacts(float(strength["multiplier"]))

    def promise(self, exactness: Mapping[str, Any]) -> str:
        """See `LockKind`."""
        u = exactness["utility"]
        return (
            f"Its function is **not** the original's: training moved it. Measured on {u['data']}, {u['name']} "
            f"({u['unit']}) was {u['before']:.4g} before and is {u['after']:.4g}; elsewhere nothing is claimed. It "
            "loads wherever the original does."
        )

    def lock_module(self, module: nn.Module, given: Mapping[str, Any]) -> ModuleLock:
        """Refuse: see `LockKind`."""
        raise PlanError(
            f"`model` must be a folder for lock {self.name}, which trains on data that the model's tokenizer or image "
            "processor reads. Save it with `save_pretrained`, and lock the folder."
        )

    def unlock_module(self, module: nn.Module, originals: Mapping[str, Any]) -> None:
        """Refuse: see `LockKind`."""
        raise PlanError(f"`model` must be a folder for lock {self.name}, which locks no model in memory.")


def _require(holds: bool, name: str, contract: str, value: object) -> None:
    if not holds:
        raise PlanError(f"`{name}` must {contract}; got {value!r}.")


KIND = Trained()
