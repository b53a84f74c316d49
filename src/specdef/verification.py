"""`verify`: are the files as published, is the lock in the weights, is the function the original's?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from specdef.checkpoint.manifest import MANIFEST, Manifest, read_manifest
from specdef.checkpoint.reader import Checkpoint, open_checkpoint
from specdef.checkpoint.writer import file_digest
from specdef.equivalence import Equivalence, compare
from specdef.errors import CheckpointError
from specdef.imbalance import pair_imbalances
from specdef.inspection import resolve_locked

TELLING_EXPONENT = 6
"""Smaller powers of two drown in the natural spread of channel norms."""


@dataclass(frozen=True)
class Check:
    """One thing that was checked."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class VerifyReport:
    """The checks `verify` made.

    Attributes:
        checks: integrity, lock, and with an original: function.
        equivalence: the comparison with the original, when one was given.
    """

    checks: tuple[Check, ...]
    equivalence: Equivalence | None

    @property
    def passed(self) -> bool:
        """Every check passed."""
        return all(check.passed for check in self.checks)


def verify(
    locked: Path | str, *, original: Path | str | None = None, progress: Callable[[str], None] | None = None
) -> VerifyReport:
    """Check a locked folder against its manifest, its weights and, if given, the original model.

    Args:
        locked: the locked folder.
        original: the unlocked model; both are then run on the same probes in the model's own dtype, bit for bit for a
            fold lock, within twice the dtype's own noise (KL) for an inject lock.
        progress: called with the name of each stage as it starts.

    Raises:
        SpecdefError: a folder is no sound checkpoint or carries no manifest. A check that fails is a result, not an
            error.
    """
    folder = Path(locked)
    say = progress or (lambda stage: None)
    manifest = read_manifest(folder)
    say("digests")
    checks = [_integrity(folder, manifest)]
    say("lock in the weights")
    checkpoint = open_checkpoint(folder)
    checks.append(_lock_present(checkpoint, manifest))
    equivalence = None
    if original is not None:
        from specdef.models import find_model

        say("function, against the original")
        source = find_model(str(original))
        _refuse_other_model(source, checkpoint)
        equivalence = compare(source, folder)
        checks.append(_function(equivalence, manifest))
    return VerifyReport(tuple(checks), equivalence)


def _integrity(folder: Path, manifest: Manifest) -> Check:
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    found = {name for name in found if not name.startswith((".git/", ".cache/"))}
    missing, extra = sorted(manifest.files.keys() - found), sorted(found - manifest.files.keys())
    changed = sorted(
        name for name in manifest.files.keys() & found if file_digest(folder / name) != manifest.files[name]
    )
    faults = [
        f"{len(names)} {word} ({names[0]})" for names, word in ((missing, "missing"), (changed, "changed")) if names
    ]
    if faults:
        return Check("integrity", False, f"files are not as published: {', '.join(faults)}")
    added = f"; {len(extra)} file(s) the manifest does not know ({extra[0]})" if extra else ""
    return Check("integrity", True, f"all {len(manifest.files)} files match their BLAKE3 digests{added}")


def _lock_present(checkpoint: Checkpoint, manifest: Manifest) -> Check:
    if manifest.method != "fold":
        from specdef.locks.inject import lock_present

        passed, detail = lock_present(checkpoint, manifest.strength)
        return Check("lock", passed, detail)
    resolved = resolve_locked(checkpoint)
    exponent = int(manifest.strength["exponent"])
    sign = 1 if manifest.strength["direction"] == "up" else -1
    counts: dict[str, int] = {}
    for pair in pair_imbalances(checkpoint, resolved.pairs):
        near = [c for c in pair.scaled if abs(c.exponent - sign * exponent) <= max(3, exponent // 2)]
        counts[pair.kind] = counts.get(pair.kind, 0) + bool(near)
    claimed = {str(k): int(v) for k, v in manifest.strength["pairs"].items()}
    found = {kind: min(counts.get(kind, 0), number) for kind, number in claimed.items()}
    words = ", ".join(f"{found[kind]}/{claimed[kind]} {kind}" for kind in claimed)
    passed = all(found[kind] == number for kind, number in claimed.items())
    if not passed and exponent < TELLING_EXPONENT:
        return Check("lock", True, f"2^{exponent} is too small to be told from natural channel scales; not recomputed")
    return Check("lock", passed, f"scaled channels near 2^{sign * exponent} found in {words} pairs")


def _refuse_other_model(original: Path, locked: Checkpoint) -> None:
    source = open_checkpoint(original)
    shapes = {name: shape for name, shape in locked.shapes.items() if ".compensation" not in name}
    if source.shapes != shapes:
        odd = sorted(
            name for name in shapes.keys() | source.shapes.keys() if shapes.get(name) != source.shapes.get(name)
        )
        raise CheckpointError(
            f"`original` must be the model that was locked; {original} differs in tensor {odd[0]}. Give that model."
        )


def _function(equivalence: Equivalence, manifest: Manifest) -> Check:
    e = equivalence
    if manifest.exactness.get("bit_exact"):
        what = (
            "identical to the bit" if e.bit_identical else f"different: largest error {e.max_error:.3g}, KL {e.kl:.3g}"
        )
        return Check("function", e.bit_identical, f"{e.num_outputs:,} outputs in {e.dtype} are {what}")
    noise = "" if e.own_noise is None else f", {e.dtype}'s own noise {e.own_noise:.3g}"
    detail = f"KL {e.kl:.3g} (at most {e.tolerance:.3g}{noise}), largest error {e.max_error:.3g}, in {e.dtype}"
    return Check("function", e.kl <= e.tolerance, detail)
