"""Work ahead: while a core is idle, run what the plan will probably ask for next.

A search tries one rate, or a few seeds, and reads them before it asks for more, so that most cores wait for the last
cell of a batch. What comes next is found by following the plan with guesses in place of the cells that still run: one
after another, that all of them end like a cell that is known. The plan itself is followed with real results alone, so
a certificate is the same with and without this; a wrong guess costs time of a core that had nothing to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest

from specdef.certify.cell import Cell
from specdef.certify.events import tell, waiting
from specdef.certify.executors.local import Connecting, Executor, Finished, LocalExecutor, Pool
from specdef.certify.findings import learning_rate, without_seed
from specdef.certify.result import StoredCell

Likely = Callable[[Sequence[Cell]], list[Cell]]
"""(cells under way or waiting) -> what will probably be asked for after them, the likeliest first."""
Known = Callable[[Cell], StoredCell | None]
RunAll = Callable[[Callable[[Sequence[Cell]], list[StoredCell]]], object]
"""Follows a plan to its end with the function that runs its batches."""


@contextmanager
def working_ahead(executor: Executor, likely: Likely) -> Iterator[Executor]:
    """The executor: working ahead where it can, in several processes of this machine; connected, where on others."""
    if isinstance(executor, Connecting):
        with executor.staying() as connected:
            yield connected
        return
    if not isinstance(executor, LocalExecutor) or executor.workers == 1:
        yield executor
        return
    with Pool(executor) as pool:
        yield Ahead(pool, likely)


@dataclass(frozen=True)
class Ahead:
    """Runs what is asked for, and on idle cores what is likely; yields both as they finish."""

    pool: Pool
    likely: Likely

    def run(self, cells: Sequence[Cell]) -> Iterator[Finished]:
        """Yield every cell once, and what was begun ahead and finished in the meantime; what runs on, runs on."""
        begun = under_way(self)
        queue = [cell for cell in cells if cell.key not in begun]
        for cell in queue:
            tell(self.pool.executor.listen, waiting(cell))
        wanted = {cell.key for cell in cells}
        while wanted:
            while queue and self.pool.free:
                self.pool.begin(queue.pop(0))
            if self.pool.free:
                pending = [cell for cell in cells if cell.key in wanted] + self.pool.running
                for cell in self.likely(pending)[: self.pool.free]:
                    self.pool.begin(cell)
            for cell, finished in self.pool.finished():
                wanted.discard(cell.key)
                yield cell, finished


def under_way(executor: Executor) -> set[str]:
    """Keys of cells that run already, whether they were asked for or not."""
    return {cell.key for cell in executor.pool.running} if isinstance(executor, Ahead) else set()


def asked_next(follow: RunAll, known: Known, pending: Sequence[Cell], seen: Iterable[StoredCell]) -> list[Cell]:
    """What a plan asks for once some cells are finished, by guess.

    Args:
        follow: follows the plan from its beginning.
        known: reads a finished cell.
        pending: cells that are not finished.
        seen: finished cells that those may end like.

    Returns:
        Cells that are neither known nor pending, under every guess the first batch with any; those of the likeliest
        guess first, in turn with the others'.
    """
    open_keys = {cell.key for cell in pending}
    batches = []
    for like in _guesses(pending, seen):

        def run(cells: Sequence[Cell], like: StoredCell = like) -> list[StoredCell]:
            found = [
                replace(like, key=cell.key, config=cell.identity()) if cell.key in open_keys else known(cell)
                for cell in cells
            ]
            if new := [cell for cell, one in zip(cells, found, strict=True) if one is None]:
                raise _AskedError(new)
            return [one for one in found if one is not None]

        try:
            follow(run)
        except _AskedError as asked:
            batches.append(asked.cells)
        except Exception:  # an impossible guess is none; the plan itself is followed with real results
            continue
    in_turn = [cell for cells in zip_longest(*batches) for cell in cells if cell is not None]
    return list({cell.key: cell for cell in in_turn}.values())


class _AskedError(Exception):
    """The plan asks for cells of which nothing is known."""

    def __init__(self, cells: list[Cell]) -> None:
        self.cells = cells


def _guesses(pending: Sequence[Cell], seen: Iterable[StoredCell]) -> list[StoredCell]:
    """Finished cells, one an outcome, that those pending may end like: of the same model, and of the same attack with
    another seed, or at the nearest learning rate, first."""
    if not pending:
        return []
    config, lr = pending[0].identity(), pending[0].attack.recipe.lr
    attack = without_seed(config)

    def distance(cell: StoredCell) -> tuple[bool, float]:
        return without_seed(cell.config) != attack, abs(math.log(learning_rate(cell) / lr))

    alike = [cell for cell in seen if cell.config["model"] == config["model"] and cell.result.counts]
    by_outcome: dict[str, StoredCell] = {}
    for cell in sorted(alike, key=distance):
        by_outcome.setdefault(cell.result.outcome.value, cell)
    return list(by_outcome.values())
