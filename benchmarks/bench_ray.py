"""How cells scale on Ray from one worker to two: tiny cells of pure computing, start of a process each included.

``python -m benchmarks.bench_ray [CELLS]``; 64 when left out.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any, cast

SECONDS = 2.0
"""Processor time of a cell."""


def busy(data: Any, listen: Any = None) -> Any:
    """Compute for a while; the result is of no use."""
    value = 0
    while time.process_time() < SECONDS:
        value = (value * 1103515245 + 12345) % 2**31
    return value


def main() -> None:
    """Measure and print."""
    # Under its own name: a cell's process does not know what is `__main__` here.
    from benchmarks.bench_ray import busy as function
    from specdef.attacks.base import Attack
    from specdef.certify.cell import Cell, Subject
    from specdef.certify.executors.ray import RayExecutor
    from specdef.tasks.base import TaskSpec
    from specdef.training.recipe import Recipe

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    cell = Cell(
        subject=Subject("nowhere", "0" * 64),
        task=TaskSpec("facts"),
        task_digest="0" * 64,
        text=None,
        text_digest="0" * 64,
        attack=Attack(Recipe()),
    )
    cells = [replace(cell, attack=Attack(Recipe(seed=seed))) for seed in range(count)]
    took = {}
    for workers in (1, 2):
        with RayExecutor(workers=workers, function=cast(Any, function)).staying() as executor:
            list(executor.run(cells[:workers]))  # Ray's own start and the first imports
            started = time.perf_counter()
            assert all(isinstance(found, int) for _, found in executor.run(cells))
            took[workers] = time.perf_counter() - started
        print(f"{count} cells, {workers} worker(s)  {took[workers]:7.1f} s", flush=True)
    print(f"efficiency from 1 worker to 2  {took[1] / took[2] / 2:.2f}")


if __name__ == "__main__":
    main()
