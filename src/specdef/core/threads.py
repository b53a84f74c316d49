"""Threads that end with the block that uses them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from specdef.core.atomic import uninterrupted


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads. At the end of the block what has not begun never does, and what runs is waited for.

    Submit under `uninterrupted`: an interrupt while a thread starts would leave it running, unknown to its pool.
    """
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        with uninterrupted():
            pool.shutdown(cancel_futures=True)
