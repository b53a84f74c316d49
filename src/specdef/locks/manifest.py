"""The public record of a lock, ``specdef_lock.json``: method, strength, digests. It names no channel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from specdef.architectures.written import WrittenMap, architecture_from
from specdef.checkpoint.header import load_json_object
from specdef.core.schema import convert
from specdef.core.text import shown
from specdef.errors import ArchitectureError, CheckpointError
from specdef.locks.base import LOCKS

MANIFEST = "specdef_lock.json"
CARD = "SPECDEF_LOCK.md"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What anyone may know about a locked folder.

    Attributes:
        method: the kind of lock, by name.
        version: version of specdef that wrote it.
        model_type: the family.
        strength: multiplier, channels or top-k, direction, layers, counts per pair kind.
        exactness: in which dtypes and caches the function is the original's, and how closely.
        checked: what was checked while locking, in words.
        files: relative path -> BLAKE3 digest of every file but the manifest itself.
        tensors: tensor name -> BLAKE3 digest of its bytes.
        map: the automatic map the lock was made with; None where the family's is declared.
    """

    method: str
    version: str
    model_type: str
    strength: Mapping[str, Any]
    exactness: Mapping[str, Any]
    checked: tuple[str, ...]
    files: Mapping[str, str]
    tensors: Mapping[str, str]
    map: WrittenMap | None = None

    def write(self, folder: Path) -> None:
        """Write ``specdef_lock.json`` into `folder`."""
        data = {name: value for name, value in asdict(self).items() if name != "map" or value is not None}
        text = json.dumps({"specdef_lock": FORMAT, **data}, indent=1)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a locked folder.

    Raises:
        CheckpointError: there is none, or it is malformed or of another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(
            f"Folder {shown(folder)} must hold {MANIFEST}; it does not. Is it a model locked by specdef?"
        )
    data = load_json_object(path)
    if data.pop("specdef_lock", None) != FORMAT:
        raise CheckpointError(
            f"File {shown(path)} must be of format {FORMAT}; it is not. Use the specdef that wrote it."
        )
    try:
        manifest = convert(data, Manifest)
        well_formed = _is_well_formed(manifest)
    except (TypeError, KeyError, ValueError, ArchitectureError):  # a SchemaError among them
        well_formed = False
    if not well_formed:
        raise CheckpointError(f"File {shown(path)} is malformed. Restore it from the published model.")
    return manifest


def _is_well_formed(manifest: Manifest) -> bool:
    """Types and claims that hang together, so that readers may rely on them."""
    maps = (manifest.strength, manifest.exactness, manifest.files, manifest.tensors)
    if not all(isinstance(part, dict) for part in maps) or not manifest.files or not manifest.tensors:
        return False
    if manifest.map is not None:
        architecture_from(manifest.map)
    return manifest.method in LOCKS.names() and LOCKS.get(manifest.method).claims_hold(manifest.strength)
