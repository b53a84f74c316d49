"""Finished cells on disk: one file per cell, written whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from specdef.certify.cell import Cell
from specdef.certify.cell_result import FinishedCell
from specdef.certify.result import StoredCell, cell_from_wire, cell_to_wire
from specdef.core.atomic import write_file
from specdef.core.leftovers import LEFTOVER, remove_leftovers
from specdef.core.schema import SchemaError, read_object
from specdef.core.text import shown
from specdef.errors import SpecdefError
from specdef.training.outcome import Outcome

GRID = "grid.json"
REFERENCES = "references"
"""Folder inside a results folder: what undefended models are worth, see `kept_reference`."""


class StoreError(SpecdefError):
    """A results folder cannot be used."""


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
        self._made = [place for place in (self.cells, folder) if not place.exists()]
        if grid is not None:
            self._claim(dict(grid))
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error
        remove_leftovers(self.cells)

    def _claim(self, grid: dict[str, Any]) -> None:
        path = self.folder / GRID
        if path.is_file():
            try:
                found = _read(path)
            except StoreError as error:
                raise StoreError(f"`out` must hold a readable {GRID}; {path} is not. Give another folder.") from error
            if found != grid:
                differing = sorted(name for name in {*found, *grid} if found.get(name) != grid.get(name))
                raise StoreError(
                    f"`out` must be a new folder or hold results of the same grid; {self.folder} holds another's "
                    f"({', '.join(differing)} differ). Give another folder."
                )
            return
        refuse_foreign(self.folder)
        write_json(path, grid)

    def read(self, cell: Cell) -> StoredCell | None:
        """The finished cell; None when it was not run, or when its process died and it may be tried again.

        Raises:
            StoreError: the file cannot be read, or is another cell's.
        """
        path = self.cells / f"{cell.key}.json"
        if not path.is_file():
            return None
        stored = _stored(path)
        if stored.config != json.loads(json.dumps(cell.identity())):
            raise StoreError(f"Result file {path} must be of the cell it is named after; it is not. Delete the file.")
        return None if stored.result.outcome is Outcome.CRASHED else stored

    def write(self, cell: Cell, finished: FinishedCell) -> StoredCell:
        """Store a finished cell; what another sweep finished in the meantime stays."""
        if (found := self.read(cell)) is not None:
            return found
        task = cell.task
        measured = replace(
            finished.measured,
            subject_name=cell.subject.name,
            train=task.path,
            eval=task.eval,
            text=cell.text,
            scorer=task.scorer,
        )
        stored = StoredCell(cell.key, cell.identity(), finished.result, measured)
        _write_cell(self.cells / f"{cell.key}.json", stored)
        return stored

    def abandon(self) -> None:
        """Remove the folders this store made, if no cell was stored in them."""
        if self.folder in self._made and not any(self.cells.glob("*.json")):
            shutil.rmtree(self.folder / REFERENCES, ignore_errors=True)
        for place in self._made:
            with suppress(OSError):
                place.rmdir()

    def keep(self, cell: StoredCell) -> None:
        """Put a finished cell from a shared place into this folder as well, so that it is complete by itself."""
        path = self.folder / "cells" / f"{cell.key}.json"
        if not path.exists() or _stored(path) != cell:
            _write_cell(path, cell)


def refuse_file(path: Path | str, argument: str = "out") -> None:
    """Raise StoreError where a results folder is to be, and something else is; no model is needed to say so."""
    if Path(path).exists() and not Path(path).is_dir():
        raise StoreError(f"`{argument}` must be a folder; {shown(path)} is none. Give another path.")


def refuse_foreign(folder: Path) -> None:
    """Raise StoreError where the folder of a new grid is to be, and something that is not of specdef is."""
    if not folder.exists() or (folder / GRID).is_file():
        return
    if not folder.is_dir() or any(map(_is_foreign, folder.iterdir())):
        raise StoreError(f"`out` must be a new folder or one that specdef wrote; {shown(folder)} is neither.")


def _is_foreign(path: Path) -> bool:
    """Whether a file is more than what a killed start of ours left behind."""
    return not LEFTOVER.match(path.name)


def stored_cells(folder: Path) -> list[StoredCell]:
    """Every finished cell of a results folder, oldest first.

    Raises:
        StoreError: there are none, or one cannot be read.
    """
    cells = folder / "cells" if (folder / "cells").is_dir() else folder
    paths = [path for path in cells.glob("*.json") if re.fullmatch("[0-9a-f]{16}", path.stem)]
    paths.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
    if not paths:
        raise StoreError(
            f"`folder` must hold results of `specdef attack` or `specdef certify`; {shown(folder)} holds none."
        )
    return [_stored(path) for path in paths]


def write_json(path: Path, content: Any) -> None:
    """Write JSON under a temporary name, then rename.

    Raises:
        StoreError: the disk is full or the folder not writable; nothing half-written stays behind.
    """
    data = (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _write_cell(path: Path, cell: StoredCell) -> None:
    write_json(path, cell_to_wire(cell))


def _stored(path: Path) -> StoredCell:
    try:
        return cell_from_wire(_read(path))
    except SchemaError as error:
        raise StoreError(
            f"Result file {path} must be a finished cell; it is not ({error}). Delete it; its cell runs again."
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, SchemaError) as error:
        raise StoreError(f"Result file {path} cannot be read ({error}). Delete it; its cell runs again.") from error


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"`out` must be writable; writing in {folder} failed ({error.strerror or error}). Finished cells are kept: "
        "make room or give another folder, then run the same command again."
    )
