"""Is a trained lock in the weights: sigma_1 of every matrix the manifest names, and how far it rose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from specdef.checkpoint.reader import Checkpoint
from specdef.errors import CheckpointError
from specdef.linalg.matrix import matrix_shape
from specdef.locks.base import Check, Evidence, Sign, without_added
from specdef.locks.spectra import jumping

if TYPE_CHECKING:
    from specdef.models.equivalence import Equivalence

TOLERANCE = 1e-3
"""Relative; how far a recomputed sigma_1 may lie from the claimed one."""
SAME = 1.1
"""Times the KL measured while locking, another machine may find; twice the dtype's own noise comes on top."""


def check(checkpoint: Checkpoint, strength: Mapping[str, Any], original: Checkpoint | None) -> Check:
    """Recompute sigma_1 of every named matrix, before and after where the original is given.

    Raises:
        CheckpointError: the manifest names a tensor that the folder lacks or that is no matrix.
    """
    claimed = {name: tuple(pair) for name, pair in strength["sigma_1"].items()}
    now = {name: _sigma_1(checkpoint, name) for name in claimed}
    wrong = [name for name, value in now.items() if not _is(value, claimed[name][1])]
    if wrong:
        name = wrong[0]
        return Check(
            "lock",
            False,
            f"sigma_1 of {len(wrong)} of {len(now)} matrices is not what the manifest claims: {now[name]:.5g} in "
            f"{name}, claimed {claimed[name][1]:.5g}",
        )
    if original is None:
        return Check(
            "lock",
            None,
            f"sigma_1 of {len(now)} matrices is as the manifest says; how far it was raised only the original shows",
        )
    start = {name: _sigma_1(original, name) for name in claimed}
    raised = {name: now[name] / value for name, value in start.items()}
    passed = all(_is(value, claimed[name][0]) for name, value in start.items())
    found = f"{min(raised.values()):.4g} to {max(raised.values()):.4g} times the original's"
    least = float(strength["multiplier"])
    return Check("lock", passed, f"sigma_1 of {len(now)} matrices is {found}, claimed at least {least:g}")


def claims_hold(strength: Mapping[str, Any]) -> bool:
    """Whether a manifest names matrices, with sigma_1 before and after, and a multiplier that these bear out."""
    pairs = strength["sigma_1"]
    if not isinstance(pairs, dict) or not pairs:
        return False
    numbers = [number for pair in pairs.values() for number in pair]
    sound = all(isinstance(pair, list) and len(pair) == 2 for pair in pairs.values()) and all(
        type(number) in (int, float) and 0 < number < math.inf for number in numbers
    )
    multiplier = float(strength["multiplier"])
    return sound and multiplier > 1 and _is(min(after / before for before, after in pairs.values()), multiplier)


def function(found: Equivalence, exactness: Mapping[str, Any]) -> Check:
    """How far the function moved, and whether that is what the manifest says; it is never called the original's."""
    claimed, moved = float(exactness["kl"]), exactness["utility"]
    passed = found.kl <= SAME * claimed + found.tolerance
    said = f"changed, {'as' if passed else 'not as'} the manifest says: KL {found.kl:.3g} nats on random inputs"
    here = f"(manifest: {claimed:.3g}), largest error {found.max_error:.3g}, in {found.dtype}"
    before = f"{moved['name']} {moved['before']:.4g} before and {moved['after']:.4g} after"
    return Check("function", passed, f"{said} {here}; {before}, measured while locking on {moved['data']}")


def recognise(name: str, evidence: Evidence) -> Sign | None:
    """Jumps in spectra, where no lock added tensors that would explain them."""
    shapes = evidence.checkpoint.shapes
    found = jumping(evidence)
    if not found or len(without_added(shapes)) < len(shapes):
        return None
    layers = {layer for tensor in found if (layer := evidence.model.layer_of(tensor)) is not None}
    return Sign(
        lock=name,
        exponent=round(math.log2(max(found.values()))),
        found=f"spectral jumps in {len(found)} matrices, nothing beside them",
        tensors=tuple(sorted(found)),
        layers=tuple(sorted(layers)),
    )


def _sigma_1(checkpoint: Checkpoint, name: str) -> float:
    from specdef.locks.kinds.trained.train import sigma_1
    from specdef.locks.replaced import read_tensor

    where = checkpoint.locate()
    if name not in where or not matrix_shape(where[name][1].shape):
        raise CheckpointError(
            f"The manifest names tensor {name}, which {checkpoint.folder} must hold as a matrix or a convolution; it "
            "does not. Restore the folder from the published model."
        )
    return sigma_1(read_tensor(checkpoint, *where[name]).float())


def _is(found: float, claimed: float) -> bool:
    return abs(found / claimed - 1) <= TOLERANCE
