"""Shards side by side: all of them, two at once, and none left running once one has failed."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from specdef.checkpoint.blocks import Progress
from specdef.checkpoint.each_shard import each_shard


def test_every_shard_is_worked_on_and_what_is_read_is_told() -> None:
    read: list[int] = []

    def work(shard: str, tell: Progress) -> str:
        tell(len(shard))
        return shard.upper()

    assert each_shard(["a", "bb", "ccc"], work, progress=read.append) == {"a": "A", "bb": "BB", "ccc": "CCC"}
    assert sorted(read) == [1, 2, 3]
    assert each_shard(["a"], work) == {"a": "A"}


@pytest.mark.parametrize(("num_workers", "seconds"), [(2, 60.0), (1, 0.1)])
def test_as_many_as_asked_are_worked_on_at_once(num_workers: int, seconds: float) -> None:
    both = threading.Barrier(2, timeout=seconds)
    together = []

    def work(shard: str, tell: Progress) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):  # where they come one after the other
            both.wait()
            together.append(shard)

    each_shard(["a", "b"], work, num_workers=num_workers)
    assert sorted(together) == (["a", "b"] if num_workers == 2 else [])


def test_when_one_fails_no_other_goes_on() -> None:
    started, others = threading.Event(), threading.active_count()
    finished: list[str] = []

    def work(shard: str, tell: Progress) -> None:
        if shard == "broken":
            assert started.wait(60)
            raise ValueError(shard)
        started.set()
        for _ in range(500):  # until it is stopped
            tell(1)
            time.sleep(0.01)
        finished.append(shard)

    with pytest.raises(ValueError, match="broken"):
        each_shard(["broken", "long"], work)
    assert threading.active_count() == others
    assert not finished
