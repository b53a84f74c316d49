"""What a lock writes: weights, small files, card and manifest of a locked folder, and the key to it."""

from __future__ import annotations

from pathlib import Path

from specdef import __version__
from specdef.architectures.written import WrittenMap
from specdef.checkpoint.blocks import Progress
from specdef.checkpoint.digests import file_digest
from specdef.checkpoint.reader import Checkpoint
from specdef.checkpoint.small_files import copy_others, write_files
from specdef.checkpoint.writer import write_shards
from specdef.locks.base import LockKind, PreparedLock
from specdef.locks.card import model_card
from specdef.locks.edits import check_finite
from specdef.locks.key import Key
from specdef.locks.manifest import CARD, Manifest


def write_locked(
    checkpoint: Checkpoint,
    folder: Path,
    kind: LockKind,
    p: PreparedLock,
    written: WrittenMap | None,
    progress: Progress | None,
) -> Key:
    """Write everything that goes into a locked folder; returns the key to it.

    Args:
        checkpoint: the original.
        folder: where to write; it exists.
        kind: the lock.
        p: the lock, planned.
        written: the automatic map it was planned with; None where the family's is declared.
        progress: called with the number of bytes just read.
    """
    rewritten = (CARD, *p.changed_files)
    files = copy_others(checkpoint, folder, skip=rewritten)  # a copy may be read-only
    replaced = {name: file_digest(checkpoint.folder / name) for name in checkpoint.others if name in rewritten}
    originals = {**files, **replaced}
    (folder / CARD).write_text(model_card(kind, p.strength, p.exactness), encoding="utf-8")
    write_files(folder, p.changed_files)
    files |= {name: file_digest(folder / name) for name in rewritten}
    digests = write_shards(checkpoint, folder, p.edits, check=check_finite, progress=progress)
    files |= {shard: digest.target for shard, digest in digests.items()}
    originals |= {shard: digest.source for shard, digest in digests.items()}
    Manifest(
        method=kind.name,
        version=__version__,
        model_type=str(checkpoint.config["model_type"]),
        strength=p.strength,
        exactness=p.exactness,
        checked=("every weight read is finite", *p.checked),
        files=dict(sorted(files.items())),
        tensors={name: digest for d in digests.values() for name, digest in d.tensors.items()},
        map=written,
    ).write(folder)
    return Key(kind.name, files, originals, p.key_edits, p.blobs)
