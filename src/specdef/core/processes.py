"""Several processes that make one attack together: what a launcher started, and what they say to each other.

A launcher (``torchrun``, ``accelerate launch``) names every process in its environment: ``RANK`` of ``WORLD_SIZE``.
Until `joined` is entered a process is alone, whatever the environment says, and everything here costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from specdef.core.devices import find_device
from specdef.errors import SpecdefError

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others before it takes them for lost."""
_LOST = ("gloo", "nccl", "connection", "timed out", "timeout", "socket", "broken pipe")
"""Words of what torch raises where another process is gone."""
_JOINED: ContextVar[bool] = ContextVar("joined", default=False)
T = TypeVar("T")


class ProcessLost(SpecdefError):
    """Another process of this attack ended or answers no more."""


def launched() -> int:
    """How many processes the launcher started; 1 without one.

    Raises:
        SpecdefError: ``WORLD_SIZE`` is no number of processes.
    """
    given = os.environ.get("WORLD_SIZE") or "1"
    if not (given.isdecimal() and int(given) > 0):
        raise SpecdefError(f"`WORLD_SIZE` must be the number of processes that a launcher started; got {given!r}.")
    return int(given)


def launched_rank() -> int:
    """Which of them this one is; 0 without a launcher."""
    return int(os.environ.get("RANK") or 0) if launched() > 1 else 0


def left_alone() -> bool:
    """Whether accelerate's launcher was told of several processes and started this one alone, as it does for CPUs."""
    told = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and bool(os.environ.get("MASTER_PORT"))
    return told and not os.environ.get("WORLD_SIZE")


def on_this_machine() -> int:
    """How many of them share this machine."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1)) if _JOINED.get() else 1


def size() -> int:
    """How many processes share the attack at hand."""
    if not _JOINED.get():
        return 1
    import torch.distributed

    return torch.distributed.get_world_size()


def rank() -> int:
    """Which of them this one is."""
    if not _JOINED.get():
        return 0
    import torch.distributed

    return torch.distributed.get_rank()


def is_first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


@contextmanager
def joined(device: str | None, meeting: Path | None = None) -> Iterator[None]:
    """Meet the other processes of the launcher; alone, do nothing.

    Args:
        device: ``cpu`` (they talk by gloo) or ``cuda`` (by NCCL, each on the GPU of its ``LOCAL_RANK``); the GPU where
            there is one when None.
        meeting: a file that none of them has written yet, through which they meet; None meets at the address that the
            launcher set.

    Raises:
        SpecdefError: the launcher left out what they need to meet.
        ProcessLost: one of them ended before the others, or did not answer for `PATIENCE`.
    """
    if _JOINED.get() or launched() == 1:
        yield
        return
    import torch.distributed

    for name in ("RANK", *(("MASTER_ADDR", "MASTER_PORT") if meeting is None else ())):
        if not os.environ.get(name):
            raise SpecdefError(
                f"`{name}` must be set beside `WORLD_SIZE`; it is not. Start specdef by torchrun or accelerate launch."
            )
    if (device := find_device(device)) == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK") or 0))
    with _losses_said():
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        # By its path: torch reads a file's address as it stands, and never decodes a space in it.
        store = None
        if meeting is not None:
            store = torch.distributed.FileStore(str(meeting), launched())  # type: ignore[attr-defined]
        torch.distributed.init_process_group(
            backend, timeout=PATIENCE, store=store, world_size=launched(), rank=launched_rank()
        )
        token = _JOINED.set(True)
        try:
            yield
        finally:
            _JOINED.reset(token)
            with suppress(Exception):
                torch.distributed.destroy_process_group()


@contextmanager
def _losses_said() -> Iterator[None]:
    """Say in one sentence that another process is gone; every other error passes."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in _LOST):
            raise
        raise ProcessLost(
            f"All {launched()} processes of this attack must live until it ends; process {launched_rank()} lost "
            f"another ({(str(error).splitlines() or [''])[0][:160]}). What was finished before is kept, this attack is "
            "not stored. See what the lost one said, then run the same command again."
        ) from error


def summed(values: Sequence[float]) -> list[float]:
    """Each value added up over all processes, in float64; as given when alone."""
    if size() == 1:
        return list(values)
    import torch

    held = torch.tensor(list(values), dtype=torch.float64)
    torch.distributed.all_reduce(held)
    return [float(value) for value in held]


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them: it alone reads and writes files.

    Raises:
        SpecdefError: what `make` raised there.
    """
    if size() == 1:
        return make()
    import torch.distributed

    held: list[Any] = [None, None]
    failed: BaseException | None = None
    if is_first():
        try:
            held[0] = make()
        except SpecdefError as error:
            failed, held[1] = error, str(error)
    torch.distributed.broadcast_object_list(held, src=0)
    if failed is not None:
        raise failed
    if held[1] is not None:
        raise SpecdefError(held[1])
    return cast(T, held[0])


def part_of(count: int) -> range:
    """Which of some rows are this process's: every `size`-th from `rank` on."""
    return range(rank(), count, size())


def without_gradients() -> Any:
    """A context to measure a model in. A sharded model is trained on with what is gathered in it, which rules out
    torch's inference mode there."""
    import torch

    return torch.no_grad() if size() > 1 else torch.inference_mode()
