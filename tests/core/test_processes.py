"""What several processes say to each other, and what one that is alone does not."""

from __future__ import annotations

import pytest
import together

from specdef.core import processes
from specdef.core.processes import (
    from_first,
    joined,
    launched,
    launched_rank,
    left_alone,
    on_this_machine,
    part_of,
    summed,
)
from specdef.errors import SpecdefError


def test_the_first_makes_what_all_get_and_what_it_refuses_all_refuse() -> None:
    first, second = together.run(together.refused_by_the_first)
    assert first == second == "made by the first: True; `out` must be a folder; x is none."


def test_alone_nothing_changes() -> None:
    with joined("cpu"):
        assert summed([0.1, 2]) == [0.1, 2]
        assert from_first(lambda: 3) == 3
        assert list(part_of(3)) == [0, 1, 2]
        assert on_this_machine() == 1


def test_rows_are_dealt_out_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "size", lambda: 3)
    monkeypatch.setattr(processes, "rank", lambda: 1)
    assert list(part_of(5)) == [1, 4]
    assert list(part_of(1)) == []


@pytest.mark.parametrize("given", ["two", "0", "-1"])
def test_a_number_of_processes_that_is_none_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", given)
    with pytest.raises(SpecdefError, match=f"`WORLD_SIZE` must be the number of processes.*got '{given}'"):
        launched()


def test_one_process_where_several_were_asked_for_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `accelerate launch --cpu --num_processes 2` sets; with one process it sets no port."""
    for name in ("WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert not left_alone()
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert left_alone()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not left_alone()


def test_a_launcher_that_says_half_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert launched_rank() == 1
    with pytest.raises(SpecdefError, match="`MASTER_ADDR` must be set beside `WORLD_SIZE`"), joined("cpu"):
        pass
