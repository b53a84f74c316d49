"""Finished cells on disk: one file per cell, written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from specdef.certify.grid import Cell
from specdef.checkpoint.target import is_alive
from specdef.errors import SpecdefError

GRID = "grid.json"
_LIBRARIES = ("specdef", "torch", "transformers", "accelerate", "peft", "pytorch-optimizer")


class StoreError(SpecdefError):
    """A results folder cannot be used."""


@dataclass(frozen=True)
class StoredCell:
    """A finished cell: its configuration, result (same on every run) and measurements (times, memory, machine)."""

    key: str
    config: dict[str, Any]
    result: dict[str, Any]
    measured: dict[str, Any]

    @property
    def attack(self) -> dict[str, Any]:
        """The attack's configuration."""
        return dict(self.config["attack"])


class Store:
    """A folder of finished cells.

    Args:
        folder: created when missing.
        grid: what every cell of this folder has in common (task, text, models); None for a folder shared by grids.
        cells: where the cells' files lie, if not in `folder`: a place several grids share.

    Raises:
        StoreError: the folder holds the results of another grid, or cannot be written.
    """

    def __init__(self, folder: Path, grid: Mapping[str, Any] | None = None, *, cells: Path | None = None) -> None:
        self.folder, self.cells = folder, cells or folder / "cells"
        if grid is not None:
            self._claim(dict(grid))
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error
        for leftover in self.cells.glob(".*.tmp-*"):
            if not is_alive(int(leftover.name.rsplit("-", 2)[1])):
                leftover.unlink(missing_ok=True)

    def _claim(self, grid: dict[str, Any]) -> None:
        path = self.folder / GRID
        if path.is_file():
            if _read(path) != grid:
                found = _read(path)
                differing = sorted(name for name in {*found, *grid} if found.get(name) != grid.get(name))
                raise StoreError(
                    f"`out` must be a new folder or hold results of the same grid; {self.folder} holds another's "
                    f"({', '.join(differing)} differ). Give another folder."
                )
            return
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise StoreError(f"`out` must be a new folder or one that specdef wrote; {self.folder} is neither.")
        write_json(path, grid)

    def read(self, cell: Cell) -> StoredCell | None:
        """The finished cell, or None."""
        path = self.cells / f"{cell.key}.json"
        return _stored(path) if path.is_file() else None

    def write(self, cell: Cell, outcome: Mapping[str, Any]) -> StoredCell:
        """Store a finished cell; a second write of the same cell replaces nothing."""
        stored = StoredCell(
            cell.key, cell.identity(), dict(outcome["result"]), {**outcome["measured"], **environment(cell.device)}
        )
        path = self.cells / f"{cell.key}.json"
        if not path.exists():
            _write_cell(path, stored)
        return stored

    def keep(self, cell: StoredCell) -> None:
        """Put a finished cell from a shared place into this folder as well, so that it is complete by itself."""
        path = self.folder / "cells" / f"{cell.key}.json"
        if not path.exists():
            _write_cell(path, cell)


def stored_cells(folder: Path) -> list[StoredCell]:
    """Every finished cell of a results folder, oldest first.

    Raises:
        StoreError: there are none, or one cannot be read.
    """
    cells = folder / "cells" if (folder / "cells").is_dir() else folder
    paths = sorted(cells.glob("????????????????.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    if not paths:
        raise StoreError(f"Folder {folder} must hold results of `specdef attack` or `specdef certify`; it holds none.")
    return [_stored(path) for path in paths]


def write_json(path: Path, content: Any) -> None:
    """Write JSON under a temporary name, then rename.

    Raises:
        StoreError: the disk is full or the folder not writable; nothing half-written stays behind.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.name}.tmp-{os.getpid()}-"
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=prefix, delete=False, encoding="utf-8") as file:
            temporary = file.name
            json.dump(content, file, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).rename(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise _unwritable(path.parent, error) from error


def _write_cell(path: Path, cell: StoredCell) -> None:
    write_json(path, {"cell": cell.key, "config": cell.config, "result": cell.result, "measured": cell.measured})


def environment(device: str) -> dict[str, Any]:
    """The machine and the libraries, for the record."""
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"hardware": _hardware(device), "python": platform.python_version(), "libraries": libraries}


def _hardware(device: str) -> str:
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _stored(path: Path) -> StoredCell:
    data = _read(path)
    try:
        return StoredCell(data["cell"], data["config"], data["result"], data["measured"])
    except KeyError as error:
        raise StoreError(f"Result file {path} must have an entry {error}; it has none. Delete the file.") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"Result file {path} cannot be read ({error}). Delete it; its cell runs again.") from error
    if not isinstance(data, dict):
        raise StoreError(f"Result file {path} must hold one JSON object; it does not. Delete it; its cell runs again.")
    return data


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"`out` must be writable; writing in {folder} failed ({error.strerror or error}). Finished cells are kept: "
        "make room or give another folder, then run the same command again."
    )
