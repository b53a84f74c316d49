"""What is seen while cells run: where each is, the time left, a sign of life in a log, a panel on a terminal."""

from __future__ import annotations

import time
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import grids
import pytest
from rich.console import Console

from specdef.certify.events import CellEvent, Phase, tell
from specdef.certify.executors.local import LocalExecutor
from specdef.cli import cells as shown
from specdef.cli import heartbeat as beats
from specdef.cli.board import Board, described
from specdef.cli.cells import cells_shown
from specdef.cli.heartbeat import heartbeat
from specdef.report import phrases


def event(key: str, phase: Phase = Phase.WAITING, step: int = 0, steps: int = 10, **more: Any) -> CellEvent:
    return CellEvent(key, "locked", f"attack {key}", phase, step, steps, **more)


def run_cell(board: Board, key: str, start: float, seconds: float) -> None:
    """A cell of ten steps that loads for 2 s and ends after `seconds`."""
    board.take(event(key, Phase.LOADING), start)
    board.take(event(key, Phase.TRAINING, score=0.2), start + 2)
    board.take(event(key, Phase.SCORING, 10, score=0.2), start + seconds)
    board.finish(key, start + seconds)


def test_cells_on_a_cluster_say_nothing_and_are_told_by_the_pace_of_those_that_ended() -> None:
    board = Board()
    for key in ("a", "b", "c", "d"):
        board.take(event(key), 10.0)
    assert board.left(20.0) is None
    board.finish("a", 40.0)
    assert board.left(41.0) == pytest.approx(3 * 30)
    board.finish("b", 40.0)
    assert board.left(41.0) == pytest.approx(2 * 15)
    board.finish("c", 50.0)
    board.finish("d", 50.0)
    assert board.left(51.0) == 0


def test_nothing_is_said_of_the_time_left_before_enough_is_known() -> None:
    board = Board()
    for key in "abc":
        board.take(event(key), 0.0)
    board.take(event("a", Phase.LOADING), 0.0)
    assert board.left(5.0) is None
    board.take(event("a", Phase.TRAINING, score=0.2), 5.0)
    board.take(event("a", Phase.TRAINING, 2, score=0.2), 9.0)
    assert board.left(9.0) is None
    board.take(event("a", Phase.TRAINING, 3, score=0.2), 11.0)
    assert board.left(11.0) == pytest.approx(14 + 2 * 25), "5 s of loading and ten steps of 2 s, three times"
    assert board.summary(11.0) == "0 of 3 cells done, about 65 s left in this batch"


def test_finished_cells_tell_how_long_the_others_take_and_workers_share_them() -> None:
    board = Board()
    for key in "abcdef":
        board.take(event(key), 0.0)
    run_cell(board, "a", 0.0, 20.0)
    run_cell(board, "b", 0.0, 20.0)
    board.take(event("c", Phase.LOADING), 20.0)
    board.take(event("d", Phase.LOADING), 20.0)
    assert board.left(20.0) == pytest.approx(40.0), "four cells of 20 s, two at once"
    assert board.summary(20.0).startswith("2 of 6 cells done, about 40 s left")


def test_another_batch_of_a_stage_begins_anew() -> None:
    board = Board()
    board.take(event("a"), 0.0)
    run_cell(board, "a", 0.0, 20.0)
    board.take(event("b"), 21.0)
    assert set(board.cells()) == {"b"}


def test_a_cell_that_was_begun_ahead_stays_on_the_board_of_the_next_batch() -> None:
    """What it took so far is not forgotten, and what ended is not counted again."""
    board = Board()
    for key in "ab":
        board.take(event(key), 0.0)
    run_cell(board, "a", 0.0, 20.0)
    board.take(event("b", Phase.LOADING), 0.0)
    board.take(event("ahead", Phase.LOADING), 20.0)
    board.finish("b", 30.0)
    for key in "cd":
        board.take(event(key), 31.0)
    assert list(board.cells()) == ["ahead", "c", "d"]
    assert board.summary(31.0).startswith("0 of 3 cells done")
    board.clear()
    assert [one.spent(40.0) for one in board.cells().values()] == [20.0]


def test_cells_say_where_they_are_in_order(toy_model: Path) -> None:
    told: list[CellEvent] = []
    (cell,) = grids.cells(toy_model, 1)
    ((_, finished),) = LocalExecutor(1, listen=told.append).run([cell])
    assert {one.key for one in told} == {cell.key}
    assert [one.phase for one in told[:3]] == [Phase.WAITING, Phase.LOADING, Phase.TRAINING]
    steps = [one.step for one in told]
    assert steps == sorted(steps)
    assert set(steps) == set(range(7))
    assert told[-1].score == finished.result.evaluations[-1].score
    assert told[-1].loss == finished.result.evaluations[-1].loss


def test_who_listens_changes_no_result_and_fails_no_cell(toy_model: Path) -> None:
    def broken(_: CellEvent) -> None:
        raise BrokenPipeError

    tell(broken, event("a"))
    (cell,) = grids.cells(toy_model, 1)
    ((_, watched),) = LocalExecutor(1, listen=broken).run([cell])
    ((_, alone),) = LocalExecutor(1).run([cell])
    assert watched.result == alone.result
    assert watched.result.counts


def test_silence_is_broken_in_a_log_and_not_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for hidden in (False, True):
        with heartbeat(lambda: "alive", hidden=hidden, every=0.01) as say:
            say("first")
            time.sleep(0.2)
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "first"
        assert ("alive" in lines) is not hidden


def test_a_pipe_gets_a_message_at_once_then_stages_and_a_line_of_every_running_cell(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with cells_shown("loading locked", quiet=False) as watch:
        assert capsys.readouterr().err == "loading locked\n"
        assert watch.line() == "still at work: loading locked"
        watch.on_stage("T1")
        watch.on_event(event("a"))
        watch.on_event(event("a", Phase.TRAINING, 4, loss=1.25, score=0.5))
        line = watch.line()
        assert line.startswith("T1: 0 of 1 cell done, about ")
        assert line.endswith("; attack a: training at step 4/10, loss 1.250, score 0.500")
    assert capsys.readouterr().err == f"stage: {phrases.titled('T1')}\n"
    with cells_shown("loading locked", quiet=True):
        pass
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_one_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=StringIO(), force_terminal=True, width=90)
    monkeypatch.setattr(shown, "err_console", console)
    monkeypatch.setattr(beats, "err_console", console)
    with cells_shown("loading", quiet=False) as watch:
        watch.on_stage("T1")
        found = event("a", Phase.TRAINING, 4, loss=1.25, score=0.5)
        watch.on_event(found)
        plain = Console(file=StringIO(), width=90)
        plain.print(watch)
        watch.say("long words " * 9)
        watch.on_event(replace(found, label="red\x1b[31m"))
    text = plain.file.getvalue()  # type: ignore[attr-defined]
    assert phrases.titled("T1") in text
    for part in ("locked: 0 of 1 cell done", "attack a", "4/10", "1.250", "0.500"):
        assert part in text
    assert described(found) == "training at step 4/10, loss 1.250, score 0.500"
    said = [line for line in console.file.getvalue().splitlines() if "long words" in line]  # type: ignore[attr-defined]
    assert len(said) == 2, "a sentence is broken between words"
    assert all(line.rstrip().endswith("words") for line in said)
