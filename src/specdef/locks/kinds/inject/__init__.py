"""The inject lock: the papers' Construction 1, a deformed matrix and its compensation as a layer of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.errors import PlanError
from specdef.locks.base import Check, Evidence, LockFacts, LockKind, ModuleLock, PreparedLock, Sign
from specdef.locks.kinds.inject.options import InjectOptions

if TYPE_CHECKING:
    from torch import nn

    from specdef.architectures.resolve import ResolvedModel
    from specdef.checkpoint.edits import ShardEdits
    from specdef.checkpoint.reader import Checkpoint
    from specdef.locks.key import Key


class Inject(LockKind):
    """Loads in transformers after ``import specdef``; the function is kept within rounding."""

    name = "inject"
    Options = InjectOptions
    spools = True

    def check_options(self, options: InjectOptions) -> None:
        """See `LockKind`."""
        if options.rank < 1:
            raise PlanError(f"`rank` must be at least 1; got {options.rank}.")
        if options.num_matrices is not None and options.num_matrices < 1:
            raise PlanError(f"`num_matrices` must be at least 1; got {options.num_matrices}.")
        if options.share is not None and not 0 < options.share <= 1:
            raise PlanError(f"`share` must be above 0 and at most 1; got {options.share:g}.")
        if options.share is not None and options.num_matrices is not None:
            raise PlanError("`share` must be left out with `num_matrices`, which says how many; got both.")
        if options.basis not in ("svd", "axis"):
            raise PlanError(f"`basis` must be svd or axis; got {options.basis!r}. Use svd for the paper's lock.")
        if options.form not in ("dense", "low_rank"):
            raise PlanError(f"`form` must be dense or low_rank; got {options.form!r}. Use dense for the paper's lock.")
        if options.basis == "axis" and options.form == "low_rank":
            raise PlanError("`form` must be left out with basis axis, whose compensation is diagonal; got 'low_rank'.")

    def prepare(
        self, checkpoint: Checkpoint, model: ResolvedModel, options: InjectOptions, spool: Path
    ) -> PreparedLock:
        """See `LockKind`."""
        if checkpoint.config.get("quantization_config"):
            raise PlanError(
                "`quantization_config` in config.json must be absent for an inject lock, which needs that entry "
                f"itself; {checkpoint.folder} has one. Use preset exact."
            )
        names = self._names(checkpoint, model, options)
        from specdef.locks.kinds.inject.plan import prepare

        return prepare(checkpoint, model, options, names, spool)

    def _names(self, checkpoint: Checkpoint, model: ResolvedModel, options: InjectOptions) -> list[str]:
        from specdef.locks.matrices import choose_matrices

        return choose_matrices(model, options, checkpoint.shapes, axes=options.basis == "axis", share=options.share)

    def reach(self, checkpoint: Checkpoint, model: ResolvedModel, options: InjectOptions) -> dict[str, int]:
        """Matrices; see `LockKind`."""
        return {"matrices": len(self._names(checkpoint, model, options))}

    def claims_hold(self, strength: Mapping[str, Any]) -> bool:
        """See `LockKind`."""
        names = strength["matrices"]
        listed = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
        return listed and float(strength["multiplier"]) > 1 and bool(strength["top_k"] >= 1)

    def check(self, checkpoint: Checkpoint, strength: Mapping[str, Any], original: Checkpoint | None) -> Check:
        """See `LockKind`."""
        from specdef.locks.kinds.inject.check import lock_present

        return Check("lock", *lock_present(checkpoint, strength))

    def recognise(self, evidence: Evidence) -> Sign | None:
        """See `LockKind`."""
        from specdef.locks.kinds.inject.recognise import recognise

        return recognise(self.name, self.owns_tensor, evidence)

    def invert(self, checkpoint: Checkpoint, key: Key) -> dict[str, ShardEdits]:
        """See `LockKind`."""
        from specdef.locks.replaced import invert

        return invert(checkpoint, key)

    def facts(self, strength: Mapping[str, Any]) -> LockFacts:
        """See `LockKind`."""
        return LockFacts(float(strength["multiplier"]), tuple(strength["matrices"]))

    def promise(self, exactness: Mapping[str, Any]) -> str:
        """See `LockKind`."""
        return (
            f"Its function is the original's {exactness['closeness']}. Load it with transformers, a pipeline with "
            "diffusers, after `import specdef`; without that import they refuse it. Other runtimes do not know its "
            "layers."
        )

    def lock_module(self, module: nn.Module, given: Mapping[str, Any]) -> ModuleLock:
        """See `LockKind`."""
        from specdef.locks.kinds.inject.memory import lock_module

        return lock_module(self.name, module, **given)

    def unlock_module(self, module: nn.Module, originals: Mapping[str, Any]) -> None:
        """See `LockKind`."""
        from specdef.locks.kinds.inject.memory import unlock_module

        unlock_module(module, originals)

    def owns_tensor(self, name: str) -> bool:
        """See `LockKind`."""
        return ".compensation" in name


KIND = Inject()
