"""Threads end with their block, also where an interrupt comes while they are started."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from specdef.core.threads import in_threads


def test_what_has_not_begun_never_does() -> None:
    free, seen = threading.Event(), []

    def waits() -> str:
        assert free.wait(60)
        return "done"

    jobs = {"first": waits, **{str(number): lambda: seen.append("late") for number in range(3)}}
    stop = threading.Event()

    def frees() -> None:
        assert stop.wait(60)
        free.set()

    threading.Thread(target=frees).start()  # the first ends once it is told to
    with in_threads(1, jobs, stop) as found:
        assert list(found) == ["first", "0", "1", "2"]
    assert found["first"].result() == "done"
    assert all(found[str(number)].cancelled() for number in range(3))
    assert not seen


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_they_start_stops_those_that_run() -> None:
    stop, told, others = threading.Event(), [], threading.active_count()

    def runs() -> None:
        told.append(stop.wait(30))

    class Jobs(dict[str, Callable[[], None]]):
        def items(self) -> Any:
            yield from super().items()
            signal.raise_signal(signal.SIGINT)  # held back until all are started, raised before the block is entered

    with pytest.raises(KeyboardInterrupt), in_threads(2, Jobs(first=runs, second=runs), stop):
        pytest.fail("entered")
    assert told == [True, True]
    assert threading.active_count() == others
