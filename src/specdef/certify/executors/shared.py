"""One cell made by several processes of this machine: a model in parts, or copies of it."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

from specdef.certify.cell import cell_from_json
from specdef.certify.cell_result import FinishedCell
from specdef.certify.events import CellEvent, Listen, tell
from specdef.certify.executors.local import DIED, EVENT, Run, leave_with_parent, safely
from specdef.certify.faults import describe
from specdef.certify.run_cell import run_cell, run_settled, settle
from specdef.certify.together import Sharing, sharing_of
from specdef.core.folders import scratch_folder
from specdef.core.leftovers import remove_scratch_of
from specdef.core.processes import ProcessLost, joined
from specdef.errors import SpecdefError
from specdef.models.base import MODEL_KINDS

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""They are all on one machine, and no other has a business with them. Linux's name of it."""
LAST_WORDS = 5.0
"""Seconds the others have to say their part once one has failed: the first to say so need not be the cause."""
LOST = "lost"
QUIET = {"TRANSFORMERS_VERBOSITY": "error"}
SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_ACTIVATION_CHECKPOINTING": "true"}


class PartLost(Exception):
    """One of a cell's processes failed, or died."""


def run_shared(
    data: Mapping[str, Any], listen: Listen | None = None, *, devices: int, function: Run | None = None
) -> FinishedCell:
    """`run_cell` by as many processes as a cell has devices; by one where they cannot share it (see `sharing_of`).

    Args:
        data: `Cell.to_json`.
        listen: told where the cell is, while it runs.
        devices: processes, at least 2, each with a device of its own where the cell is on GPUs.
        function: what each process runs; another one only in tests.

    Raises:
        SpecdefError: the cell is refused.
        PartLost: one of the processes failed or died; the others are ended.
    """
    cell = cell_from_json(data)
    sharing = sharing_of(cell.attack, MODEL_KINDS.get(cell.model_kind))
    if sharing is Sharing.ALONE:
        return run_cell(data, listen)
    with scratch_folder(None) as folder:
        shared = dict(SHARDED) if sharing is Sharing.SHARDS else {}
        with _started(devices, shared, folder / "meeting", function or run_settled, data, cell.device) as parts:
            return _first_of(parts, listen)


@contextmanager
def _started(devices: int, shared: dict[str, str], *arguments: Any) -> Iterator[list[tuple[Any, Connection]]]:
    """The processes, each with what it sends; those that still run at the end are killed."""
    context = multiprocessing.get_context("spawn")
    parts: list[tuple[Any, Connection]] = []
    try:
        for number in range(devices):
            receiver, sender = context.Pipe(duplex=False)
            told = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": devices, "LOCAL_WORLD_SIZE": devices}
            variables = {**{name: str(value) for name, value in told.items()}, **QUIET, **shared}
            process = context.Process(target=_part, args=(sender, variables, *arguments))
            try:
                process.start()
            except OSError as error:
                raise PartLost(f"process {number} of {devices} did not start ({describe(error)})") from None
            sender.close()
            parts.append((process, receiver))
        yield parts
    finally:
        for process, receiver in parts:
            process.kill()
            process.join()
            remove_scratch_of(process.pid)
            receiver.close()


def _first_of(parts: list[tuple[Any, Connection]], listen: Listen | None) -> FinishedCell:
    """What the first process gives, once all gave something; what the others say in between is passed on."""
    found: dict[int, tuple[str, Any]] = {}
    until: float | None = None
    while len(found) < len(parts) and (until is None or time.monotonic() < until):
        waiting = {receiver: number for number, (_, receiver) in enumerate(parts) if number not in found}
        for ready in wait(list(waiting), None if until is None else max(0.0, until - time.monotonic())):
            number = waiting[cast(Connection, ready)]
            try:
                said = cast(Connection, ready).recv()
            except (EOFError, OSError):  # it died, at best between two messages
                process = parts[number][0]
                process.join(LAST_WORDS)
                said = DIED, f"ended with exit code {process.exitcode}"
            if said[0] == EVENT:
                tell(listen, said[1])
                continue
            found[number] = said
            if said[0] != "done" and until is None:
                until = time.monotonic() + LAST_WORDS
    for ended, value in found.values():
        if ended == "refused":
            raise SpecdefError(value)
    for kind in ("failed", DIED, LOST):
        for number, (ended, value) in found.items():
            if ended == kind:
                raise PartLost(f"process {number} of {len(parts)}: {value}")
    return cast(FinishedCell, found[0][1])


def _part(
    sender: Connection, variables: dict[str, str], meeting: Path, function: Run, data: dict[str, Any], device: str
) -> None:
    """In one of the processes: meet the others, run, send back."""
    threading.Thread(target=leave_with_parent, daemon=True).start()
    settle()
    os.environ.update(variables)
    if sys.platform == "linux":
        os.environ.update(LOOPBACK)

    def listen(event: CellEvent) -> None:
        sender.send((EVENT, event))

    lost: list[str] = []

    def together(data: Mapping[str, Any], listen: Listen | None) -> FinishedCell:
        try:
            with joined(device, meeting):
                return function(data, listen)
        except ProcessLost as error:  # a fault of the machine, and none of the cell's
            lost.append(str(error))
            raise

    said = safely(together, data, listen if variables["RANK"] == "0" else None)
    sender.send((LOST, lost[0]) if lost else said)
    sender.close()
