"""The private key of a lock: one file with everything needed to restore the original bytes. Mode 0600, never published.

The file is a safetensors container: the metadata holds a JSON body and its checksum, the tensors hold raw original
bytes (weights a lock replaced, headers and small files that changed).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from specdef.checkpoint.header import ShardHeader, TensorInfo, read_header, read_header_bytes, write_header
from specdef.core.dtypes import LOCKABLE
from specdef.core.folders import unwritable
from specdef.core.schema import SchemaError, convert, parse
from specdef.core.text import shown
from specdef.errors import CheckpointError, KeyFileError
from specdef.linalg.exponent import MAX_EXPONENT
from specdef.locks.edits import Edit

FORMAT = 1
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
"""What a file system without hard links (FAT, some network ones) answers to one."""
MISFIT = "The key does not fit the locked model's tensors. Give the key written with it."


@dataclass(frozen=True)
class Key:
    """Everything needed to undo a lock.

    Attributes:
        method: the kind of lock, by name.
        locked_files: relative path -> BLAKE3 digest of the locked folder this key belongs to.
        original_files: relative path -> BLAKE3 digest of what unlocking must restore.
        edits: exact scalings, as plain data.
        blobs: name -> raw original bytes.
    """

    method: str
    locked_files: Mapping[str, str]
    original_files: Mapping[str, str]
    edits: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    blobs: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def default_key_path(out: Path) -> Path:
    """Where the private key goes unless told otherwise: beside the locked folder, not in it."""
    place = out if out.name not in ("", "..") else out.resolve()
    return place.with_name(place.name + ".specdef-key")


def find_key(locked: Path) -> Path:
    """The key of a locked folder at its default place.

    Raises:
        KeyFileError: there is none.
    """
    place = default_key_path(locked)
    if not place.is_file():
        raise KeyFileError(
            f"`key` must be given: {shown(place)}, its default place, does not exist. Give the file `lock` wrote."
        )
    return place


def refuse_key_path(path: Path, locked: Path, model: Path | None = None) -> None:
    """Raise KeyFileError unless `path` is a new file outside both model folders, in a folder that exists."""
    name = shown(path)
    if model is not None and path.resolve().is_relative_to(model.resolve()):
        raise KeyFileError(f"`key` must lie outside the model folder; got {name}, inside {shown(model)}. Move it.")
    if path.resolve().is_relative_to(locked.resolve()):
        raise KeyFileError(f"`key` must lie outside the locked folder, which gets published; got {name}. Move it.")
    if path.exists() or path.is_symlink():
        raise KeyFileError(f"`key` must be a new file; {name} exists. Choose another name: keys are never overwritten.")
    if not path.resolve().parent.is_dir():
        raise KeyFileError(f"`key` must be in a folder that exists; {shown(path.parent)} does not. Create it first.")


def write_key(key: Key, temporary: Path, path: Path) -> None:
    """Write a key with mode 0600 to a temporary file that does not exist yet; `place_key` then calls it `path`.

    Raises:
        CheckpointError: it cannot be written.
    """
    body = json.dumps(
        {
            "specdef_key": FORMAT,
            "method": key.method,
            "locked_files": dict(key.locked_files),
            "original_files": dict(key.original_files),
            "edits": [dict(edit) for edit in key.edits],
        },
        sort_keys=True,
    )
    header = write_header(
        {name: ("U8", (len(data),)) for name, data in key.blobs.items()},
        {"body": body, "checksum": _checksum(body, key.blobs)},
    )
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(header)
            for data in key.blobs.values():
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(path, error) from error


def place_key(temporary: Path, path: Path) -> None:
    """Give a finished key its name, without overwriting.

    Raises:
        KeyFileError: the path exists.
        CheckpointError: it cannot be created.
    """
    try:
        _place(temporary, path)
    except FileExistsError:
        raise KeyFileError(f"`key` must be a new file; {shown(path)} exists. Choose another name.") from None
    except OSError as error:
        raise unwritable(path, error) from error


def _place(temporary: Path, path: Path) -> None:
    """Give a file a name that nothing has; without hard links the name is taken first, by an empty file."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        path.touch(0o600, exist_ok=False)
        try:
            temporary.replace(path)
        except OSError:
            path.unlink()
            raise


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON body of a key, as it is on disk."""

    specdef_key: int
    method: str
    locked_files: dict[str, str]
    original_files: dict[str, str]
    edits: tuple[dict[str, Any], ...]


def read_key(path: Path) -> Key:
    """Read and check a key file. No more is read than the file holds.

    Raises:
        KeyFileError: missing, not a specdef key, or changed since it was written.
    """
    try:
        if not path.is_file():
            raise KeyFileError(
                f"`key` must be a specdef key file; {shown(path)} was not found. Give the file `lock` wrote."
            )
        header = read_header(path)
        metadata, blobs = dict(header.metadata or {}), _blobs(path, header)
        body = metadata["body"]
        if _checksum(body, blobs) != metadata["checksum"]:
            raise KeyFileError(f"Key {shown(path)} was changed after it was written (checksum mismatch). Use a backup.")
        if parse(body, dict[str, Any]).get("specdef_key") != FORMAT:
            raise KeyFileError(
                f"Key {shown(path)} must be of format {FORMAT}; it is not. Use the specdef that wrote it."
            )
        typed = parse(body, _Body)
    except (CheckpointError, SchemaError, KeyError, OSError) as error:
        raise KeyFileError(
            f"`key` must be a specdef key file; {shown(path)} is not one. Give the file `lock` wrote."
        ) from error
    return Key(typed.method, typed.locked_files, typed.original_files, typed.edits, blobs)


def scalings(key: Key, tensors: Mapping[str, TensorInfo]) -> tuple[Edit, ...]:
    """The scalings a key holds, each of which fits its tensor.

    Args:
        key: a key just read; its checksum says that it is whole, not who wrote it.
        tensors: name -> entry, of the locked model.

    Raises:
        KeyFileError: one is malformed, names no tensor, or goes beyond its tensor's axes or numbers.
    """
    try:
        edits = tuple(convert(edit, Edit) for edit in key.edits)
    except SchemaError as error:
        raise KeyFileError(MISFIT) from error
    for edit in edits:
        tensor = tensors.get(edit.tensor)
        if (
            tensor is None
            or tensor.dtype not in LOCKABLE
            or not 0 <= edit.axis < len(tensor.shape)
            or not all(0 <= index < tensor.shape[edit.axis] for index in edit.indices)
            or abs(edit.exponent) > MAX_EXPONENT
        ):
            raise KeyFileError(MISFIT)
    return edits


def stored_tensors(key: Key, tensors: Mapping[str, TensorInfo]) -> dict[str, bytes]:
    """The original tensors a key holds, each of the size its entry says.

    Args:
        key: a key just read.
        tensors: name -> entry of the original; what the key holds of other tensors is left out.

    Raises:
        KeyFileError: one is of another size.
    """
    found = {name: key.blobs[f"tensor:{name}"] for name in tensors if f"tensor:{name}" in key.blobs}
    if any(len(data) != tensors[name].num_bytes for name, data in found.items()):
        raise KeyFileError(MISFIT)
    return found


def stored_header(key: Key, shard: str) -> tuple[bytes, tuple[TensorInfo, ...]] | None:
    """A shard's original header: its bytes and its tensors; None where the key holds none.

    Raises:
        KeyFileError: it is no sound header.
    """
    raw = key.blobs.get(f"header:{shard}")
    if raw is None:
        return None
    try:
        return raw, read_header_bytes(raw, shard)
    except CheckpointError as error:
        raise KeyFileError(MISFIT) from error


def _blobs(path: Path, header: ShardHeader) -> dict[str, bytes]:
    blobs = {}
    with path.open("rb") as file:
        for tensor in header.tensors:
            file.seek(tensor.start)
            blobs[tensor.name] = file.read(tensor.num_bytes)
    return blobs


def _checksum(body: str, blobs: Mapping[str, bytes]) -> str:
    hasher = blake3(body.encode())
    for name in sorted(blobs):
        hasher.update(name.encode())
        hasher.update(len(blobs[name]).to_bytes(8, "little"))
        hasher.update(blobs[name])
    return hasher.hexdigest()
