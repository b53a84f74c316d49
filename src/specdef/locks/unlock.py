"""`unlock`: from a locked folder and its private key back to the original files, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, overload

from specdef.checkpoint.blocks import Progress
from specdef.checkpoint.digests import Digests, file_digest
from specdef.checkpoint.edits import ShardEdits
from specdef.checkpoint.reader import INDEX, Checkpoint, open_checkpoint
from specdef.checkpoint.small_files import copy_others
from specdef.checkpoint.writer import write_shards
from specdef.core.folders import new_folder, refuse_target
from specdef.core.text import shown
from specdef.errors import CheckpointError, KeyFileError, PlanError, SpecdefError
from specdef.locks.base import LOCKS, ModuleKey
from specdef.locks.in_memory import unlock_module
from specdef.locks.key import MISFIT, Key, read_key
from specdef.locks.manifest import CARD, MANIFEST, read_manifest
from specdef.models.memory import is_module

if TYPE_CHECKING:
    from torch import nn

MAY_CHANGE = ("config.json", INDEX)
"""Small files a lock may rewrite."""


@overload
def unlock(locked: Path | str, out: Path | str, key: Path | str, *, progress: Progress | None = None) -> Path: ...


@overload
def unlock(locked: nn.Module, *, key: ModuleKey) -> None: ...


def unlock(
    locked: Path | str | nn.Module,
    out: Path | str | None = None,
    key: Path | str | ModuleKey | None = None,
    *,
    progress: Progress | None = None,
) -> Path | None:
    """Restore the original files of a locked folder, byte for byte; or the weights of a model in memory, in place.

    Args:
        locked: the locked folder, or the model in memory that `lock` locked.
        out: the folder to create; a model in memory takes none.
        key: the private key `lock` wrote; of a model in memory the `key` of what `lock` returned.
        progress: called with the number of bytes just read. Folders only.

    Returns:
        `out`; None for a model in memory.

    Raises:
        SpecdefError: the key is wrong or tampered with, the locked files were changed, or `out` is not usable;
            nothing is left behind. Files added to the folder after locking are not carried over.
    """
    if is_module(locked, argument="locked"):
        if out is not None or progress is not None:
            name = "progress" if out is None else "out"
            raise PlanError(f"`{name}` must be left out for a model in memory, which is unlocked in place.")
        if not isinstance(key, ModuleKey):
            raise KeyFileError(
                f"`key` must be the `key` of what `lock` returned for this model; got a {type(key).__name__}."
            )
        unlock_module(locked, key)
        return None
    if out is None or not isinstance(key, str | Path):
        name, what = ("out", "the folder to create") if out is None else ("key", "the file that `lock` wrote")
        raise PlanError(f"`{name}` must be given with a locked folder: {what}.")
    locked, out, key = Path(locked), Path(out), Path(key)
    refuse_target(out, locked)
    secret = read_key(key)
    manifest = read_manifest(locked)
    if dict(manifest.files) != dict(secret.locked_files):
        raise KeyFileError(
            f"Key {shown(key)} belongs to another locked model than {shown(locked)}. Give the key written with it."
        )
    checkpoint = open_checkpoint(locked)
    with new_folder(out, source=locked) as folder:
        small = {name: secret.blobs[f"file:{name}"] for name in MAY_CHANGE if f"file:{name}" in secret.blobs}
        strangers = [name for name in checkpoint.others if name not in secret.locked_files]
        copy_others(checkpoint, folder, skip=(MANIFEST, CARD, *small, *strangers))
        for name, data in small.items():
            (folder / name).write_bytes(data)
        try:
            digests = write_shards(checkpoint, folder, _undo_edits(checkpoint, secret), progress=progress)
        except (IndexError, ValueError) as error:
            raise KeyFileError(MISFIT) from error
        _check_restored(folder, locked, secret, digests)
    return out


def _undo_edits(checkpoint: Checkpoint, secret: Key) -> dict[str, ShardEdits]:
    try:
        return LOCKS.get(secret.method).invert(checkpoint, secret)
    except (KeyError, TypeError, ValueError, IndexError, PlanError) as error:
        raise KeyFileError(MISFIT) from error


def _check_restored(folder: Path, locked: Path, secret: Key, digests: Mapping[str, Digests]) -> None:
    for shard, digest in digests.items():
        if digest.source != secret.locked_files.get(shard):
            raise CheckpointError(
                f"File {shown(locked / shard)} was changed after locking. Restore it from the published model."
            )
    restored = {shard: digest.target for shard, digest in digests.items()}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in restored:
            restored[name] = file_digest(path)
    wrong = sorted(
        name
        for name in restored.keys() | secret.original_files.keys()
        if restored.get(name) != secret.original_files.get(name)
    )
    if wrong:
        raise SpecdefError(
            f"File {shown(wrong[0])} could not be restored to its original bytes. "
            "It was changed, added or removed after locking; restore the folder from the published model."
        )
