"""What a model is worth before anyone trains it: measured once in a results folder, and kept there."""

from __future__ import annotations

import math
from pathlib import Path

from specdef.certify.cell import Cell, digest_of
from specdef.certify.run_cell import reference_utility
from specdef.certify.store import REFERENCES, write_json
from specdef.core.processes import from_first, is_first
from specdef.core.schema import SchemaError, read_object


def kept_reference(folder: Path, cell: Cell) -> float:
    """Utility of the cell's model before training, in the unit of the cell's utility.

    One file a model, named after all that its utility depends on.

    Args:
        folder: the results folder; a value in it is read, and no model is loaded. A finite one that is new is kept.
        cell: whose subject is measured; its attack and task do not matter.

    Raises:
        SpecdefError: the model or its general data cannot be used, or the folder cannot be written.
    """
    wanted = {name: value for name, value in cell.identity().items() if name not in ("attack", "task", "task_digest")}
    path = folder / REFERENCES / f"{digest_of(wanted)[:16]}.json"
    if (kept := from_first(lambda: _read(path))) is not None:
        return kept
    found = reference_utility(cell)
    if math.isfinite(found) and is_first():
        write_json(path, {"utility": found})
    return found


def _read(path: Path) -> float | None:
    try:
        return float(read_object(path)["utility"])
    except (OSError, SchemaError, KeyError, TypeError, ValueError):
        return None
