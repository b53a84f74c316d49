"""`unlock`: from a locked folder and its private key back to the original files, byte for byte, or to its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from specdef.checkpoint.blocks import Progress
from specdef.checkpoint.digests import Digests, file_digest
from specdef.checkpoint.edits import ShardEdits
from specdef.checkpoint.reader import Checkpoint, open_checkpoint
from specdef.checkpoint.small_files import copy_others, rewritable, write_files
from specdef.checkpoint.writer import write_shards
from specdef.core.folders import SIGNATURE, new_folder, refuse_target
from specdef.core.results import Result
from specdef.core.text import shown
from specdef.errors import CheckpointError, KeyFileError, PlanError, SpecdefError
from specdef.locks.base import LOCKS, ModuleKey
from specdef.locks.in_memory import unlock_module
from specdef.locks.key import MISFIT, Key, find_key, read_key
from specdef.locks.manifest import MANIFEST, read_manifest
from specdef.locks.prose import README
from specdef.models.memory import is_module

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, repr=False)
class UnlockReport(Result):
    """What `unlock` wrote.

    Attributes:
        out: the folder.
        kept: small files edited or added after locking, carried over as they are.
        put_back: files edited after locking that the lock had rewritten: the original is restored, the edit is not.
        missing: small files of the original that the locked folder no longer has.
    """

    out: Path
    kept: tuple[str, ...] = ()
    put_back: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class _SmallFiles:
    """What becomes of a locked folder's small files: names to leave out, contents to put back, what there is to say."""

    skip: tuple[str, ...]
    originals: Mapping[str, bytes]
    kept: tuple[str, ...] = ()
    put_back: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@overload
def unlock(
    locked: Path | str,
    out: Path | str,
    key: Path | str | None = None,
    *,
    weights_only: bool = False,
    progress: Progress | None = None,
) -> UnlockReport: ...


@overload
def unlock(locked: nn.Module, *, key: ModuleKey) -> None: ...


def unlock(
    locked: Path | str | nn.Module,
    out: Path | str | None = None,
    key: Path | str | ModuleKey | None = None,
    *,
    weights_only: bool = False,
    progress: Progress | None = None,
) -> UnlockReport | None:
    """Restore the original files of a locked folder, byte for byte; or the weights of a model in memory, in place.

    Args:
        locked: the locked folder, or the model in memory that `lock` locked.
        out: the folder to create; a model in memory takes none.
        key: the private key `lock` wrote; ``LOCKED.specdef-key`` beside the folder when None. Of a model in memory the
            `key` of what `lock` returned.
        weights_only: restore the weights and the files the lock rewrote, and carry over files that were edited or added
            after locking. The signature and the lock's own files, which would no longer be true, are left out. Folders
            only.
        progress: called with the number of bytes just read. Folders only.

    Returns:
        What was written; None for a model in memory.

    Raises:
        SpecdefError: the key is wrong or tampered with, the locked weights were changed, without `weights_only` any
            file was, or `out` is not usable; nothing is left behind. Without `weights_only`, files added to the folder
            after locking are not carried over.
    """
    if is_module(locked, argument="locked"):
        given = {"out": out is not None, "weights_only": weights_only, "progress": progress is not None}
        if name := next((name for name, is_given in given.items() if is_given), None):
            raise PlanError(f"`{name}` must be left out for a model in memory, which is unlocked in place.")
        if not isinstance(key, ModuleKey):
            raise KeyFileError(
                f"`key` must be the `key` of what `lock` returned for this model; got a {type(key).__name__}."
            )
        unlock_module(locked, key)
        return None
    if out is None or isinstance(key, ModuleKey):
        name, what = ("out", "the folder to create") if out is None else ("key", "the file that `lock` wrote")
        raise PlanError(f"`{name}` must be given with a locked folder: {what}.")
    return unlock_folder(Path(locked), Path(out), key, weights_only=weights_only, progress=progress)


def unlock_folder(
    locked: Path, out: Path, key: Path | str | None, *, weights_only: bool, progress: Progress | None
) -> UnlockReport:
    """`unlock` of a folder."""
    refuse_target(out, locked)
    secret = read_key(find_key(locked) if key is None else Path(key))
    manifest = read_manifest(locked)
    if dict(manifest.files) != dict(secret.locked_files):
        name = shown(locked)
        raise KeyFileError(f"The key belongs to another locked model than {name}. Give the key written with it.")
    checkpoint = open_checkpoint(locked)
    small = _edited_files(checkpoint, secret) if weights_only else _original_files(checkpoint, secret)
    with new_folder(out, source=locked) as folder:
        copy_others(checkpoint, folder, skip=(*small.skip, *small.originals))
        write_files(folder, small.originals)
        try:
            digests = write_shards(checkpoint, folder, _undo_edits(checkpoint, secret), progress=progress)
        except (IndexError, ValueError) as error:
            raise KeyFileError(MISFIT) from error
        _check_weights(locked, secret, digests)
        if not weights_only:
            _check_small_files(folder, secret, digests)
    return UnlockReport(out, small.kept, small.put_back, small.missing)


def _undo_edits(checkpoint: Checkpoint, secret: Key) -> dict[str, ShardEdits]:
    try:
        return LOCKS.get(secret.method).invert(checkpoint, secret)
    except (KeyError, TypeError, ValueError, IndexError, PlanError) as error:
        raise KeyFileError(MISFIT) from error


def _may_change(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Small files a lock may rewrite."""
    return (*rewritable(checkpoint), README)


def _original_files(checkpoint: Checkpoint, secret: Key) -> _SmallFiles:
    """Everything as it was before locking; what the lock or anybody added afterwards is left out."""
    may_change = _may_change(checkpoint)
    originals = {name: secret.blobs[f"file:{name}"] for name in may_change if f"file:{name}" in secret.blobs}
    for name in may_change:  # what the lock wrote is put back or left out, and an edit of it would vanish unsaid
        digest = secret.locked_files.get(name)
        if digest and name in checkpoint.others and file_digest(checkpoint.folder / name) != digest:
            raise _not_restored(name)
    return _SmallFiles(tuple(name for name in checkpoint.others if name not in secret.original_files), originals)


def _edited_files(checkpoint: Checkpoint, secret: Key) -> _SmallFiles:
    """Everything as it is now, but what the lock itself wrote."""
    now = {name: file_digest(checkpoint.folder / name) for name in checkpoint.others}
    edited = {
        name for name, digest in now.items() if name in secret.locked_files and digest != secret.locked_files[name]
    }
    added = now.keys() - secret.locked_files.keys() - {MANIFEST, SIGNATURE}
    originals = {}
    for name in _may_change(checkpoint):
        # an edited README is the user's; an edited configuration would not fit the original weights
        if f"file:{name}" in secret.blobs and not (name == README and (name in edited or name not in now)):
            originals[name] = secret.blobs[f"file:{name}"]
    of_the_lock = secret.locked_files.keys() - secret.original_files.keys()
    skip = {MANIFEST, SIGNATURE, *(name for name in of_the_lock if not (name == README and name in edited))}
    missing = secret.original_files.keys() - now.keys() - checkpoint.shards.keys() - originals.keys()
    return _SmallFiles(
        skip=tuple(skip),
        originals=originals,
        kept=tuple(sorted((edited | added) - skip - originals.keys())),
        put_back=tuple(sorted(edited & originals.keys())),
        missing=tuple(sorted(missing)),
    )


def _check_weights(locked: Path, secret: Key, digests: Mapping[str, Digests]) -> None:
    for shard, digest in digests.items():
        if digest.source != secret.locked_files.get(shard):
            raise CheckpointError(
                f"File {shown(locked / shard)} was changed after locking. Restore it from the published model."
            )
    restored = {shard: digest.target for shard, digest in digests.items()}
    shards = {name for name in secret.original_files if name.endswith(".safetensors")} | restored.keys()
    wrong = sorted(name for name in shards if restored.get(name) != secret.original_files.get(name))
    if wrong:
        raise SpecdefError(
            f"File {shown(wrong[0])} could not be restored to its original bytes. "
            "It was changed, added or removed after locking; restore the folder from the published model."
        )


def _check_small_files(folder: Path, secret: Key, digests: Mapping[str, Digests]) -> None:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {name: path for path in paths if (name := path.relative_to(folder).as_posix()) not in digests}
    restored = {name: file_digest(path) for name, path in names.items()}
    wanted = {name: digest for name, digest in secret.original_files.items() if name not in digests}
    wrong = sorted(name for name in restored.keys() | wanted.keys() if restored.get(name) != wanted.get(name))
    if wrong:
        raise _not_restored(wrong[0])


def _not_restored(name: str) -> SpecdefError:
    return SpecdefError(
        f"File {shown(name)} could not be restored to its original bytes. It was changed or removed after "
        "locking; restore the folder from the published model, or say `--weights-only`, which keeps such edits."
    )
