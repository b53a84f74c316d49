"""Run the cells that are not done yet, store each as it finishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from specdef.certify.cell import Cell
from specdef.certify.executors.local import Executor
from specdef.certify.result import StoredCell
from specdef.certify.store import Store

OnCell = Callable[[StoredCell, int, int], None]
"""(finished cell, cells done, cells in this batch); 0 and 0 for a cell that nobody has asked for yet."""


def sweep(
    cells: Sequence[Cell], store: Store, executor: Executor, *, on_cell: OnCell | None = None
) -> list[StoredCell]:
    """The results of `cells`, in their order; only what the store does not hold yet is run.

    What an executor finishes besides is stored as well.

    Raises:
        StoreError: a result cannot be written; what was finished stays.
    """
    unique = {cell.key: cell for cell in cells}
    found = {key: stored for key, cell in unique.items() if (stored := store.read(cell)) is not None}
    missing = [cell for key, cell in unique.items() if key not in found]
    if missing:
        for cell, outcome in executor.run(missing):
            found[cell.key] = store.write(cell, outcome)
            if on_cell is not None:
                count = (len(found.keys() & unique.keys()), len(unique)) if cell.key in unique else (0, 0)
                on_cell(found[cell.key], *count)
    return [found[cell.key] for cell in cells]
