"""The shards of a checkpoint worked on side by side, and stopped together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from functools import partial

from specdef.checkpoint.blocks import Progress
from specdef.core.threads import Found, in_threads


def each_shard(
    shards: Iterable[str],
    work: Callable[[str, Progress], Found],
    *,
    progress: Progress | None = None,
    num_workers: int = 2,
) -> dict[str, Found]:
    """What `work` finds in each shard; when one fails or the user interrupts, no thread outlives this call.

    Args:
        shards: their names.
        work: called with a shard and what it must call with the number of bytes just read: there it is stopped.
        progress: called with the number of bytes just read.
        num_workers: shards worked on at once.
    """
    stop = threading.Event()

    def read(count: int) -> None:
        if stop.is_set():
            raise CancelledError
        if progress is not None:
            progress(count)

    with in_threads(num_workers, {shard: partial(work, shard, read) for shard in shards}, stop) as found:
        return {shard: future.result() for shard, future in found.items()}
