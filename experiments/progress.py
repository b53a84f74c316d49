"""One line for every finished cell."""

from __future__ import annotations

from specdef.certify.result import StoredCell


def say(cell: StoredCell, done: int, total: int) -> None:
    """Print how far a batch is, and how its latest attack ended."""
    best = cell.result.best
    scored = "" if best is None else f", best {best.score:.3f} with utility {best.utility:.3g}"
    print(f"[{done}/{total}] {cell.attack.label}: {cell.result.outcome.value}{scored}", flush=True)
