"""Where cells run: in processes of this machine, or on Ray. Both give the same results."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, cast, runtime_checkable

from specdef.certify.cell import Cell
from specdef.certify.cell_result import FinishedCell, crashed, refused
from specdef.certify.events import CellEvent, Listen, tell, waiting
from specdef.certify.faults import describe, is_machine_fault
from specdef.certify.run_cell import run_cell
from specdef.core.leftovers import remove_scratch_of
from specdef.errors import SpecdefError, UnreadyError

Finished = tuple[Cell, FinishedCell]
Run = Callable[..., FinishedCell]
"""(`Cell.to_json`, who listens) -> finished cell. On Ray nobody listens."""
EVENT, DIED = "event", "died"
_LIGHT = ("specdef.certify.run_cell", "torch", "transformers")
PRELOADED = (
    *_LIGHT,
    "transformers.modeling_layers",
    "transformers.modeling_gguf_pytorch_utils",
    "transformers.optimization",
    "transformers.models.auto.image_processing_auto",
    "torch._inductor",  # torch imports it to be deterministic
    "accelerate",
)
"""What every cell imports, once, in the process that cells are forked from; a cell on its own takes seconds to do so.
None of it may start a thread or ask for a GPU: forks of a process that did can hang, or find no GPU. For cells on a
GPU, only what has run on one is loaded ahead."""


class Executor(Protocol):
    """Runs cells, each in a process of its own, and yields them as they finish."""

    def run(self, cells: Sequence[Cell]) -> Iterator[Finished]:
        """Yield every cell once with what `run_cell` gave, or with `crashed`."""
        ...


@runtime_checkable
class Connecting(Protocol):
    """An executor on other machines, which had better stay connected from batch to batch."""

    def staying(self) -> AbstractContextManager[Executor]:
        """The executor, connected from its first batch to the end."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """A pool of processes on this machine, one process per cell.

    Attributes:
        workers: cells at once.
        function: what each process runs; another one only in tests.
        listen: told where every cell is: all as they begin to wait, then each as it runs. Called from other threads.
    """

    workers: int = 1
    function: Run = run_cell
    listen: Listen | None = None

    def run(self, cells: Sequence[Cell]) -> Iterator[Finished]:
        """Yield cells as they finish."""
        for cell in cells:
            tell(self.listen, waiting(cell))
        with Pool(self) as pool:
            for cell in cells:
                pool.begin(cell)
            while pool.running:
                yield from pool.finished()


class Pool:
    """The processes of a `LocalExecutor`: what is begun runs on, whichever cells are waited for; the end kills it."""

    def __init__(self, executor: LocalExecutor) -> None:
        self.executor = executor
        self._threads = ThreadPoolExecutor(executor.workers)
        self._futures: dict[Future[FinishedCell], Cell] = {}
        self._processes: set[Any] = set()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in list(self._processes):
            process.kill()
        self._threads.shutdown(wait=True)

    @property
    def running(self) -> list[Cell]:
        """What was begun and is not finished."""
        return list(self._futures.values())

    @property
    def free(self) -> int:
        """How many cells can be begun without waiting for another."""
        return max(0, self.executor.workers - len(self._futures))

    def begin(self, cell: Cell) -> None:
        """Run the cell as soon as a process is free for it."""
        self._futures[self._threads.submit(self._run, cell)] = cell

    def finished(self) -> Iterator[Finished]:
        """Wait until a cell is finished; it, and others that are. Nothing where nothing runs."""
        done, _ = wait(self._futures, return_when=FIRST_COMPLETED)
        for future in done:
            yield self._futures.pop(future), future.result()

    def _run(self, cell: Cell) -> FinishedCell:
        """In a thread: run the cell in a process of its own."""
        return as_finished(*forked(self.executor.function, cell.to_json(), self.executor.listen, self._known))

    @contextmanager
    def _known(self, process: Any) -> Iterator[None]:
        """While it runs, the end kills it."""
        self._processes.add(process)
        if self._closing.is_set():  # it was not there when the others were killed
            process.kill()
        try:
            yield
        finally:
            self._processes.discard(process)


def forked(
    function: Run,
    data: dict[str, Any],
    listen: Listen | None = None,
    known: Callable[[Any], AbstractContextManager[Any]] = nullcontext,
) -> tuple[str, Any]:
    """What `safely` gives in a process of the cell's own, or ``died`` and how; the process is forked from one that has
    imported what every cell does.

    Args:
        function: runs the cell.
        data: `Cell.to_json`.
        listen: told where the cell is, while it runs.
        known: entered with the process while it runs.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*(PRELOADED if data["device"] == "cpu" else _LIGHT)])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, function, data))
    try:
        process.start()
    except OSError as error:
        return "failed", describe(error)
    sender.close()
    with known(process), closing(receiver):
        try:
            while (received := receiver.recv())[0] == EVENT:
                tell(listen, received[1])
            kind, value = received
        except (EOFError, OSError):  # at best between two messages
            kind, value = DIED, None
        process.join()
    if kind == DIED:
        remove_scratch_of(process.pid or 0)
        code = process.exitcode or 0
        signalled = f"signal {-code}" + (" (often: out of memory)" if code == -9 else "")
        value = f"the cell's process ended with {signalled if code < 0 else f'exit code {code}'}"
    return kind, value


def as_finished(kind: str, value: Any) -> FinishedCell:
    """What `forked` gave, as a finished cell."""
    if kind == "refused":
        return refused(value)
    return cast(FinishedCell, value) if kind == "done" else crashed(value)


def _child(sender: Any, function: Run, data: dict[str, Any]) -> None:
    """In the cell's process: run, send back, and leave at once when the parent is gone."""
    threading.Thread(target=leave_with_parent, daemon=True).start()

    def listen(event: CellEvent) -> None:
        sender.send((EVENT, event))

    sender.send(safely(function, data, listen))
    sender.close()


def safely(function: Run, data: Mapping[str, Any], *listen: Any) -> tuple[str, Any]:
    """Run a cell: what it gave, or why it gave nothing. A refusal is a result; a fault of the machine never is, nor
    a package or file that is not there as planned.

    A result says nothing of where files lie: the model's folder goes by its name.
    """
    try:
        return "done", function(data, *listen)
    except Exception as error:
        if not isinstance(error, SpecdefError) or is_machine_fault(error):
            return "failed", describe(error)
        folder = Path(data["subject"]["path"])
        said = str(error).replace(str(folder), folder.name) if folder.is_absolute() else str(error)
        return "failed" if isinstance(error, UnreadyError) else "refused", said


def leave_with_parent() -> None:
    """In a thread of a process: wait for the end of the one that started it, and leave then."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        remove_scratch_of(os.getpid())
        os._exit(1)
