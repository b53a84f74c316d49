"""Is a certificate of a locked folder, whose prose may have changed before or after it was made?"""

from __future__ import annotations

from itertools import product
from pathlib import Path

from specdef.certify.cell import file_digests, is_read, subject_digest
from specdef.locks.manifest import Manifest
from specdef.locks.prose import is_prose

_MOST = 12
"""Changed files of prose of which every combination is tried; of more, all or none."""


def is_of_folder(digest: str, folder: Path, manifest: Manifest) -> bool:
    """Whether a certificate's subject is the folder, each file of prose as it is now or as the lock left it.

    A licence may have come before the certificate or after it; it does not change what was attacked. Files
    that are no prose must be as they are now.

    Args:
        digest: of the certificate's subject.
        folder: the locked folder.
        manifest: of the folder, with the digests of its files as locked.

    Raises:
        SpecdefError: the folder holds no safetensors, or a file cannot be read.
    """
    now: dict[str, bytes | None] = dict(file_digests(folder))
    then = {name: _bytes(found) for name, found in manifest.files.items()}
    names = [name for name in {*now, *then} if "/" not in name and is_read(name) and is_prose(name)]
    changed = sorted(name for name in names if now.get(name) != then.get(name))
    states = product((False, True), repeat=len(changed))
    if len(changed) > _MOST:
        states = ((state,) * len(changed) for state in (False, True))  # type: ignore[assignment]
    for state in states:
        tried = now | {name: then.get(name) for name, as_locked in zip(changed, state, strict=True) if as_locked}
        if digest == subject_digest({name: found for name, found in tried.items() if found is not None}):
            return True
    return False


def _bytes(digest: object) -> bytes | None:
    """A digest of the manifest; None where it is none, which the check of the manifest says."""
    try:
        return bytes.fromhex(str(digest))
    except ValueError:
        return None
