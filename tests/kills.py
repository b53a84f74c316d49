"""`kill -9` at a chosen instant: before the n-th operation on files that a piece of work makes in given places."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

OPERATIONS = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.chmod", "os.truncate"}
"""Audit events; each is raised just before the operation it is named after."""


def killed_at(number: int, work: Callable[[], object], places: Iterable[Path]) -> bool:
    """Do `work` in a fork of this process that is killed before its n-th operation on files below `places`.

    Returns:
        Whether it was killed; False when the work had ended before.
    """
    below = tuple(f"{place}{os.sep}" for place in places)
    pid = os.fork()
    if pid == 0:
        seen = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event in OPERATIONS and isinstance(arguments[0], str | os.PathLike):
                if not os.fspath(arguments[0]).startswith(below):
                    return
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            work()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return os.WIFSIGNALED(status)


def kills(work: Callable[[int], object], places: Iterable[Path], *, every: int = 1) -> Iterator[int]:
    """Kill `work(number)` before its 1st, (1 + every)-th, ... operation; yield each number after the kill.

    The iteration ends with the first work that ends by itself, and its number is not yielded.
    """
    number = 1
    while killed_at(number, lambda: work(number), places):  # noqa: B023
        yield number
        number += every
