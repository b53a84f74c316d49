"""A lock with an automatic map: what is refused, what its manifest and cards say, and the check on the model itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from specdef.architectures.written import WrittenMap
from specdef.errors import PlanError
from specdef.locks.base import LockKind, PreparedLock
from specdef.locks.scaling_kind import ScalingLock


def refuse_map(map: str | WrittenMap | None, kind: LockKind) -> None:
    """Refuse what no automatic map can do, before anything is read.

    Raises:
        PlanError: `map` is not ``auto``, or the lock replaces matrices, which an automatic map does not name.
    """
    if isinstance(map, str) and map != "auto":
        raise PlanError(f"`map` must be auto, or left out for a declared family; got {map!r}.")
    if map is not None and not isinstance(kind, ScalingLock):
        raise PlanError(
            f"`map` must be left out with lock {kind.name}: it scales no pairs. Use preset exact or ladder."
        )


def said_of_map(p: PreparedLock, written: WrittenMap) -> PreparedLock:
    """The same lock, with what its manifest, its cards and whoever locks must know of an automatic map."""
    said = f"by an automatic map of {written.model_type} ({written.made_by}; {len(written.pairs)} kinds of place)"
    remark = (
        f"The pairs were found {said}: `specdef map MODEL` shows them. No person has reviewed them; they hold to the "
        "bit in a small random model of this configuration, and this model's outputs are compared before it is written."
    )
    checked = "the automatic map's pairs hold to the bit in a small random model, and this model's outputs are compared"
    return replace(
        p, exactness={**p.exactness, "map": said}, checked=(*p.checked, checked), remarks=(*p.remarks, remark)
    )


def refuse_inexact(source: Path, folder: Path, kind: LockKind, prepared: PreparedLock) -> None:
    """Refuse an automatic map that does not hold on the real weights.

    Raises:
        PlanError: the locked model says something else than the original.
    """
    from specdef.models.equivalence import compare

    check = kind.function(compare(source, folder), prepared.exactness)
    if not check.passed:
        raise PlanError(
            f"`map` auto must keep the function; on this model it does not ({check.detail}). `specdef map MODEL` says "
            "which pairs do; name those with `pairs`."
        )
