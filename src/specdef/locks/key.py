"""The private key of a lock: one file with everything needed to restore the original bytes. Mode 0600, never published.

The file is a safetensors container: the metadata holds a JSON body and its checksum, the tensors hold raw original
bytes (weights an inject lock replaced, headers and small files that changed).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from specdef.checkpoint.header import read_header, write_header
from specdef.core.folders import unwritable
from specdef.errors import CheckpointError, KeyFileError

FORMAT = 1


@dataclass(frozen=True)
class Key:
    """Everything needed to undo a lock.

    Attributes:
        method: ``fold`` or ``inject``.
        locked_files: relative path -> BLAKE3 digest of the locked folder this key belongs to.
        original_files: relative path -> BLAKE3 digest of what unlocking must restore.
        edits: the fold lock's scalings, as plain data.
        blobs: name -> raw original bytes.
    """

    method: str
    locked_files: Mapping[str, str]
    original_files: Mapping[str, str]
    edits: tuple[Mapping[str, Any], ...] = ()
    blobs: Mapping[str, bytes] = field(default_factory=dict)


def default_key_path(out: Path) -> Path:
    """Where the private key goes unless told otherwise: beside the locked folder, not in it."""
    return out.with_name(out.name + ".specdef-key")


def refuse_key_path(path: Path, locked: Path, model: Path | None = None) -> None:
    """Raise KeyFileError unless `path` is a new file outside both model folders, in a folder that exists."""
    if model is not None and path.resolve().is_relative_to(model.resolve()):
        raise KeyFileError(f"`key` must lie outside the model folder; got {path}, inside {model}. Move it.")
    if path.resolve().is_relative_to(locked.resolve()):
        raise KeyFileError(f"`key` must lie outside the locked folder, which gets published; got {path}. Move it.")
    if path.exists() or path.is_symlink():
        raise KeyFileError(f"`key` must be a new file; {path} exists. Choose another name: keys are never overwritten.")
    if not path.resolve().parent.is_dir():
        raise KeyFileError(f"`key` must be in a folder that exists; {path.parent} does not. Create it first.")


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
        os.link(temporary, path)
    except FileExistsError:
        raise KeyFileError(f"`key` must be a new file; {path} exists. Choose another name.") from None
    except OSError as error:
        raise unwritable(path, error) from error


def read_key(path: Path) -> Key:
    """Read and check a key file.

    Raises:
        KeyFileError: missing, not a specdef key, or changed since it was written.
    """
    if not path.is_file():
        raise KeyFileError(f"`key` must be a specdef key file; {path} was not found. Give the file `lock` wrote.")
    try:
        header = read_header(path)
        metadata = dict(header.metadata or {})
        body_text, checksum = metadata["body"], metadata["checksum"]
        with path.open("rb") as file:
            blobs = {}
            for tensor in header.tensors:
                file.seek(tensor.start)
                blobs[tensor.name] = file.read(tensor.num_bytes)
        if _checksum(body_text, blobs) != checksum:
            raise KeyFileError(f"Key {path} was changed after it was written (checksum mismatch). Use a backup.")
        body = json.loads(body_text)
        if body.pop("specdef_key") != FORMAT:
            raise KeyFileError(f"Key {path} must be of format {FORMAT}; it is not. Use the specdef that wrote it.")
        return Key(blobs=blobs, **{**body, "edits": tuple(body["edits"])})
    except (CheckpointError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise KeyFileError(
            f"`key` must be a specdef key file; {path} is not one. Give the file `lock` wrote."
        ) from error


def _checksum(body: str, blobs: Mapping[str, bytes]) -> str:
    hasher = blake3(body.encode())
    for name in sorted(blobs):
        hasher.update(name.encode())
        hasher.update(len(blobs[name]).to_bytes(8, "little"))
        hasher.update(blobs[name])
    return hasher.hexdigest()
