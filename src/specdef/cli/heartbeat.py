"""A sign of life where output is piped: a line whenever nothing was printed for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from specdef.cli.render import err_console, safe

EVERY = 8.0
"""Seconds of silence that are broken: a busy machine is late, and ten shall not pass."""


@contextmanager
def heartbeat(line: Callable[[], str], *, hidden: bool, every: float = EVERY) -> Iterator[Callable[[str], None]]:
    """Yield what prints a line; whenever it was not called for `every` seconds, `line()` is printed.

    Args:
        line: what to say; called from another thread.
        hidden: print no sign of life, for a terminal where a bar moves.
        every: seconds.
    """
    spoken, over = threading.Event(), threading.Event()

    def say(text: str) -> None:
        spoken.set()
        # A log keeps a line a line; a terminal is given whole words.
        err_console.print(safe(text), soft_wrap=not err_console.is_terminal, highlight=False)

    def beat() -> None:
        while not over.is_set():
            if not spoken.wait(every) and not over.is_set():
                say(line())
            spoken.clear()

    thread = threading.Thread(target=beat, daemon=True)
    if not hidden:
        thread.start()
    try:
        yield say
    finally:
        over.set()
        spoken.set()
        if thread.is_alive():
            thread.join(1)
