"""What is not finished yet: under its own names, gone after a failure, an interrupt or a kill.

Standard library only.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEFTOVER = re.compile(r"^\.(?:(?P<name>.+)\.)?specdef-(?P<pid>\d+)-\w+$")
_unfinished: set[Path] = set()


@contextmanager
def temporary_path(target: Path) -> Iterator[Path]:
    """A name beside `target` where nothing is yet, and where nothing is left afterwards, file or folder."""
    with _removed(target.with_name(f".{target.name}.{_unique()}")) as path:
        yield path


@contextmanager
def temporary_in(parent: Path) -> Iterator[Path]:
    """The same, of no particular target."""
    with _removed(parent / f".{_unique()}") as path:
        yield path


def _unique() -> str:
    return f"specdef-{os.getpid()}-{secrets.token_hex(4)}"


@contextmanager
def _removed(path: Path) -> Iterator[Path]:
    _unfinished.add(path)  # before it exists: an interrupt may fall between any two instructions, of the cleaning too
    try:
        yield path
    finally:
        _remove(path)
        _unfinished.discard(path)


def remove_unfinished() -> None:
    """Remove what an interrupt left because it fell outside, or into, the cleaning of `temporary_path`."""
    for path in tuple(_unfinished):
        _remove(path)
        _unfinished.discard(path)


def remove_stale(target: Path) -> None:
    """Remove what killed processes left beside `target` on its behalf."""
    remove_leftovers(target.resolve().parent, target.name)


def remove_scratch_of(pid: int) -> None:
    """Remove what a process that was killed left in the system's temporary place."""
    for folder in Path(tempfile.gettempdir()).glob(f".specdef-{pid}-*"):
        _remove(folder)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left in a folder: of everything, or of the target called `name`."""
    for path in folder.glob(".*"):
        found = LEFTOVER.match(path.name)
        if found and name in (None, found["name"]) and not is_alive(int(found["pid"])):
            _remove(path)


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


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OverflowError:
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
