"""What is not finished yet: under its own names, gone after a failure, an interrupt or a kill.

Standard library only.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from specdef.core.leftovers import remove, remove_leftovers, remove_scratch, temporary_name

_unfinished: set[Path] = set()


@contextmanager
def temporary_path(target: Path) -> Iterator[Path]:
    """A name beside `target` where nothing is yet, and where nothing is left afterwards, file or folder."""
    with _temporary(target.parent, target.name) as path:
        yield path


@contextmanager
def temporary_in(parent: Path) -> Iterator[Path]:
    """The same, of no particular target."""
    with _temporary(parent, "") as path:
        yield path


@contextmanager
def _temporary(parent: Path, name: str) -> Iterator[Path]:
    remove_scratch()
    remove_leftovers(parent)
    with _removed(parent / temporary_name(name)) as path:
        yield path


@contextmanager
def _removed(path: Path) -> Iterator[Path]:
    _unfinished.add(path)  # before it exists: an interrupt may fall between any two instructions, of the cleaning too
    try:
        yield path
    finally:
        remove(path)
        _unfinished.discard(path)


def remove_unfinished() -> None:
    """Remove what an interrupt left because it fell outside, or into, the cleaning of `temporary_path`."""
    for path in tuple(_unfinished):
        remove(path)
        _unfinished.discard(path)


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, over what was there.

    Raises:
        OSError: the disk is full or the folder not writable; nothing half-written stays behind.
    """
    with temporary_path(path) as temporary:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block has ended. Only the main thread of a process is ever interrupted."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            signal.raise_signal(signal.SIGINT)
