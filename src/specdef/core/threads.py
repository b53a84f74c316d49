"""Threads that end with the block that uses them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from specdef.core.atomic import uninterrupted

Found = TypeVar("Found")


@contextmanager
def in_threads(
    count: int, jobs: Mapping[str, Callable[[], Found]], stop: threading.Event | None = None
) -> Iterator[dict[str, Future[Found]]]:
    """The jobs under way, `count` at once and in their order.

    At the end of the block, however it ends, what has not begun never does, `stop` is set, what runs is waited for.
    """
    pool = ThreadPoolExecutor(count)
    try:
        with uninterrupted():  # an interrupt while a thread starts would leave it running, unknown to its pool
            futures = {name: pool.submit(job) for name, job in jobs.items()}
        yield futures
    finally:
        with uninterrupted():
            pool.shutdown(wait=False, cancel_futures=True)
            if stop is not None:
                stop.set()
            pool.shutdown()
