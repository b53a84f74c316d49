"""Cells on Ray. The one file that imports ray."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from specdef.certify.cell import Cell
from specdef.certify.events import Listen, tell, waiting
from specdef.certify.executors.local import DIED, Executor, Finished, Run, as_finished, forked
from specdef.certify.faults import describe
from specdef.certify.run_cell import run_cell
from specdef.errors import SpecdefError

LOOPBACK = "127.0.0.1"
RETRIES = 2
"""Times a cell is run again whose process, worker or node was lost. One that failed by itself is recorded, never run
again."""


class CellLost(Exception):
    """A cell's process died."""


@dataclass(frozen=True)
class RayExecutor:
    """One Ray task per cell, which runs it in a process of its own.

    Attributes:
        address: ``auto`` or ``HOST:PORT`` of a cluster; None starts a local one.
        workers: cells at once on a local cluster.
        gpus: share of a GPU per cell.
        function: what each task runs; another one only in tests.
        listen: told which cells wait; where they are while they run is not heard from a cluster.
        processes: of each cell; it is given a CPU for each of them at least.
    """

    address: str | None = None
    workers: int = 1
    gpus: float = 0.0
    function: Run = run_cell
    listen: Listen | None = None
    processes: int = 1

    def run(self, cells: Sequence[Cell]) -> Iterator[Finished]:
        """Yield cells as they finish."""
        threads = self.threads(cells)
        with self.connected(threads):
            import ray

            self._check_room(ray.nodes(), threads)
            # A worker that holds a GPU must not keep it for the next cell; another one saves the next cell's imports.
            asked: dict[str, Any] = {"num_cpus": threads, "num_gpus": self.gpus, "max_calls": 1 if self.gpus else 0}
            remote = ray.remote(**asked, max_retries=RETRIES, retry_exceptions=[CellLost])(_cell)
            for cell in cells:
                tell(self.listen, waiting(cell))
            running = {remote.remote(self.function, cell.to_json()): cell for cell in cells}
            while running:
                done, _ = ray.wait(list(running))
                for reference in done:
                    cell = running.pop(reference)
                    try:
                        kind, value = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        lost = getattr(error, "cause", None)
                        kind, value = "failed", str(lost) if isinstance(lost, CellLost) else describe(error)
                    yield cell, as_finished(kind, value)

    def threads(self, cells: Sequence[Cell]) -> int:
        """CPUs of one of these cells."""
        return max([self.processes, *(cell.threads for cell in cells)])

    @contextmanager
    def staying(self) -> Iterator[Executor]:
        """This executor, connected from its first batch to the end: workers keep what they imported."""
        with ExitStack() as stack:
            yield _Staying(self, stack)

    @contextmanager
    def connected(self, threads: int) -> Iterator[None]:
        """Be connected, unless the process is; where no cluster is named, with one for `workers` cells of `threads`.

        Raises:
            SpecdefError: Ray is not installed, or no cluster is there.
        """
        if importlib.util.find_spec("ray") is None:
            raise SpecdefError("`ray` needs the package ray. Run `pip install specdef[ray]`.")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        if ray.is_initialized():
            yield
            return
        here: dict[str, Any] = {
            "include_dashboard": False,
            "num_cpus": self.workers * threads,
            "_node_ip_address": LOOPBACK,  # no other machine has a business with a cluster of this one
        }
        options = here if self.address is None else {}
        try:
            ray.init(address=self.address or "local", log_to_driver=False, configure_logging=False, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SpecdefError(
                f"`ray` must be auto or the address of a running cluster; {self.address!r} is not reachable "
                f"({describe(error)}). Start one with `ray start --head`."
            ) from error
        try:
            yield
        finally:
            ray.shutdown()

    def _check_room(self, nodes: Sequence[Any], threads: int) -> None:
        """Refuse cells that no machine of the cluster has room for: Ray would let them wait for ever."""
        room = [node["Resources"] for node in nodes if node["Alive"]]
        of_processes = "devices_per_cell"
        cpus = of_processes if threads == self.processes > 1 else "threads"
        gpus = of_processes if self.processes > 1 else "gpus_per_cell"
        for name, resource, wanted in ((cpus, "CPU", threads), (gpus, "GPU", self.gpus)):
            most = max((node.get(resource, 0) for node in room), default=0)
            if wanted > most:
                raise SpecdefError(
                    f"`{name}` must be what one machine of the Ray cluster has, at most {most:g}; got {wanted:g}. Give "
                    "a smaller number, or start Ray on a larger machine."
                )


@dataclass(frozen=True)
class _Staying:
    """Connects with the first batch, and leaves the end of it to the stack."""

    executor: RayExecutor
    stack: ExitStack

    def run(self, cells: Sequence[Cell]) -> Iterator[Finished]:
        """See `RayExecutor.run`."""
        self.stack.enter_context(self.executor.connected(self.executor.threads(cells)))
        yield from self.executor.run(cells)


def _cell(function: Run, data: dict[str, Any]) -> tuple[str, Any]:
    """In a worker of Ray: run a cell."""
    kind, value = forked(function, data)
    if kind == DIED:
        raise CellLost(value)
    return kind, value
