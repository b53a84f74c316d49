"""Working ahead: the same certificate in less time, with nothing run twice."""

from __future__ import annotations

import dataclasses
import errno
import math
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grids
import pytest
import synthetic

from specdef.attacks.base import Attack
from specdef.certify import ahead
from specdef.certify import timed_cells as file
from specdef.certify.cell import Cell
from specdef.certify.certificate import Certificate
from specdef.certify.certify_study import certify_study
from specdef.certify.effort import QUICK, STANDARD, THOROUGH, Effort
from specdef.certify.events import CellEvent
from specdef.certify.executors.local import Finished, LocalExecutor, Pool
from specdef.certify.store import Store
from specdef.certify.sweep import sweep
from specdef.certify.timed_cells import OutOfTimeError, TimedCells
from specdef.errors import SpecdefError
from specdef.training.outcome import Outcome

THREATS = {QUICK: ("T0", "T1", "T2", "T3"), STANDARD: ("T0", "T1", "T2"), THOROUGH: ("T0", "T1")}
BEHAVIOURS = (synthetic.holds, synthetic.falls_to_search)


def seconds_of(cell: Cell) -> float:
    """How long a made-up cell runs: no two alike, and by no rule that the plan knows."""
    return 100 + int(cell.key[:4], 16) % 200


class Simulated:
    """A pool on a clock of its own."""

    def __init__(self, executor: Any) -> None:
        self.executor, self.now = executor, 0.0
        self.begun: list[str] = []
        self.died: set[str] = set()
        self.killed: set[str] = set()
        self._ends: dict[str, tuple[float, Cell]] = {}
        executor.pools.append(self)

    def __enter__(self) -> Simulated:
        return self

    def __exit__(self, *_: object) -> None:
        self.killed = set(self._ends)

    @property
    def running(self) -> list[Cell]:
        return [cell for _, cell in self._ends.values()]

    @property
    def free(self) -> int:
        return int(self.executor.workers) - len(self._ends)

    def begin(self, cell: Cell) -> None:
        assert self.free
        self.begun.append(cell.key)
        self._ends[cell.key] = (self.now + seconds_of(cell), cell)

    def finished(self) -> Iterator[Finished]:
        key = min(self._ends, key=lambda one: self._ends[one][0])
        self.now, cell = self._ends.pop(key)
        for one, finished in synthetic.Pretended(self.executor.behaviour).run([cell]):
            if finished.result.outcome is Outcome.CRASHED:
                self.died.add(one.key)
            yield one, finished


@dataclasses.dataclass(frozen=True)
class Timed(LocalExecutor):
    """As many workers as asked for, each of which pretends."""

    behaviour: Callable[[Cell], str] = synthetic.holds
    pools: list[Simulated] = dataclasses.field(default_factory=list)


@pytest.fixture
def certify(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Certificate, Simulated]]:
    monkeypatch.setattr(ahead, "Pool", Simulated)

    def run(
        folder: Path,
        behaviour: Callable[[Cell], str],
        *,
        workers: int,
        effort: Effort = STANDARD,
        threats: Sequence[str] = ("T0", "T1"),
        likely: bool = True,
    ) -> tuple[Certificate, Simulated]:
        executor = Timed(workers, behaviour=behaviour)
        with monkeypatch.context() as patched:
            if not likely:
                patched.setattr(ahead, "_guesses", lambda pending, seen: [])
            made = certify_study(synthetic.study(effort=effort), Store(folder), executor, threats=threats)
        return made, executor.pools[0]

    return run


def without_times(certificate: Certificate) -> Certificate:
    return dataclasses.replace(certificate, seconds=0.0)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize(("effort", "workers"), [(QUICK, 2), (STANDARD, 3), (THOROUGH, 5)])
def test_the_certificate_is_the_one_of_a_process_that_waits(
    certify: Any, behaviour: Callable[[Cell], str], effort: Effort, workers: int, tmp_path: Path
) -> None:
    plain = certify_study(
        synthetic.study(effort=effort),
        Store(tmp_path / "plain"),
        synthetic.Pretended(behaviour),
        threats=THREATS[effort],
    )
    made, pool = certify(tmp_path / "ahead", behaviour, workers=workers, effort=effort, threats=THREATS[effort])
    assert without_times(made) == without_times(plain)
    twice = {key for key in pool.begun if pool.begun.count(key) > 1}
    assert twice <= pool.died, "no cell runs twice but one whose process died, as ever"
    stored = {path.stem for path in (tmp_path / "ahead" / "cells").iterdir()}
    asked = {path.stem for path in (tmp_path / "plain" / "cells").iterdir()}
    assert asked <= stored <= set(pool.begun)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("workers", [2, 3, 5])
def test_cores_wait_less(certify: Any, behaviour: Callable[[Cell], str], workers: int, tmp_path: Path) -> None:
    """On the clock of made-up cells: never later than without, and with two workers nearer their fair share."""
    _, waits = certify(tmp_path / "waits", behaviour, workers=workers, likely=False)
    _, works = certify(tmp_path / "works", behaviour, workers=workers)
    assert works.now < waits.now


def test_what_is_asked_for_goes_before_what_is_likely(certify: Any, tmp_path: Path) -> None:
    """Nothing is begun ahead while a cell of the batch waits: the first four are the window's."""
    _, pool = certify(tmp_path, synthetic.holds, workers=2)
    _, alone = certify(tmp_path / "alone", synthetic.holds, workers=2, likely=False)
    assert pool.begun[:4] == alone.begun[:4]


def test_one_process_works_on_what_is_asked_for_alone() -> None:
    executor = LocalExecutor(1)
    with ahead.working_ahead(executor, lambda pending: pytest.fail("nobody is idle")) as found:
        assert found is executor


def test_an_executor_on_other_machines_stays_connected_through_the_certificate(tmp_path: Path) -> None:
    came: list[str] = []

    class Far(synthetic.Pretended):
        @contextmanager
        def staying(self) -> Iterator[synthetic.Pretended]:
            came.append("connected")
            yield synthetic.Pretended(self.behaviour)
            came.append("left")

        def run(self, cells: Sequence[Cell]) -> Iterator[Any]:
            raise AssertionError("a connection for every batch")

    study = synthetic.study()
    far = certify_study(study, Store(tmp_path / "far"), Far(synthetic.holds), threats=("T0", "T1"))
    near = certify_study(study, Store(tmp_path / "near"), synthetic.Pretended(synthetic.holds), threats=("T0", "T1"))
    assert far.threat_models == near.threat_models
    assert came == ["connected", "left"]


def test_a_run_that_goes_on_takes_up_what_was_finished_ahead(certify: Any, tmp_path: Path) -> None:
    certify(tmp_path, synthetic.holds, workers=3, threats=("T0",))
    before = {path.stem for path in (tmp_path / "cells").iterdir()}
    _, pool = certify(tmp_path, synthetic.holds, workers=3, threats=("T0", "T1"))
    assert not before & set(pool.begun)


def test_cells_say_that_they_wait_when_they_are_asked_for(certify: Any, tmp_path: Path) -> None:
    told: list[CellEvent] = []
    executor, study = Timed(2, listen=told.append), synthetic.study()
    certify_study(study, Store(tmp_path), executor, threats=("T0",))
    window = [
        study.attacked(study.original, Attack(replace(study.recipe, lr=lr), (), study.stop)) for lr in study.window
    ]
    assert [event.key for event in told[:4]] == [cell.key for cell in window]
    assert {event.key for event in told} <= set(executor.pools[0].begun)


def test_a_cell_that_nobody_asked_for_is_told_without_a_count(tmp_path: Path) -> None:
    study = synthetic.study()
    asked, extra = (study.cell(study.locked, lr=lr) for lr in (1e-4, 1e-5))

    class More:
        def run(self, cells: Sequence[Cell]) -> Iterator[Finished]:
            yield from synthetic.Pretended(synthetic.holds).run([extra, *cells])

    told: list[tuple[str, int, int]] = []
    found = sweep([asked], Store(tmp_path), More(), on_cell=lambda cell, *count: told.append((cell.key, *count)))
    assert [cell.key for cell in found] == [asked.key]
    assert told == [(extra.key, 0, 0), (asked.key, 1, 1)]
    assert Store(tmp_path).read(extra) is not None


def test_a_guess_is_a_run_of_the_same_model_that_counts(tmp_path: Path) -> None:
    study, store = synthetic.study(), Store(tmp_path)
    ends = {1e-4: "stall 0.4", 3e-5: "stall 0.3", 1e-5: "collapse 0.5", 1e-6: "invalid"}
    cells = [study.cell(study.locked, lr=lr) for lr in ends]
    seen = [store.write(one, synthetic.result(ends[one.attack.recipe.lr], target=0.6)) for one in cells]
    other = study.cell(study.original, lr=1e-4)
    seen.append(store.write(other, synthetic.result("broken 20", target=0.6)))
    found = ahead._guesses([study.cell(study.locked, lr=2e-4)], seen)
    assert [one.key for one in found] == [cells[0].key, cells[2].key], "one an outcome, the nearest rate first"
    between = ahead._guesses([study.cell(study.locked, lr=2e-5)], seen)
    assert [one.key for one in between] == [cells[1].key, cells[2].key]


@pytest.mark.parametrize("minutes", range(6, 60, 3))
def test_after_the_minutes_what_is_under_way_is_finished_and_nothing_is_begun(
    certify: Any, monkeypatch: pytest.MonkeyPatch, minutes: int, tmp_path: Path
) -> None:
    """Cells of a batch that was begun before go on; of those begun ahead, none that is asked for is killed."""
    executor, asked = Timed(3, behaviour=synthetic.holds), list[set[str]]()
    limit = 60.0 * minutes

    class Clock:
        def perf_counter(self) -> float:
            return executor.pools[0].now if executor.pools else 0.0

    real = TimedCells.run

    def run(self: Any, working: Any, cells: Sequence[Cell]) -> Any:
        if executor.pools[0].now >= limit:
            asked.append({cell.key for cell in cells})
            before = len(executor.pools[0].begun)
            try:
                return real(self, working, cells)
            finally:
                assert len(executor.pools[0].begun) == before
        return real(self, working, cells)

    monkeypatch.setattr(file, "time", Clock())
    monkeypatch.setattr(TimedCells, "run", run)
    with suppress(SpecdefError):
        certify_study(
            synthetic.study(effort=STANDARD), Store(tmp_path), executor, threats=("T0", "T1"), minutes=minutes
        )
    (pool,) = executor.pools
    assert not pool.killed & set().union(*asked)


def test_a_cell_whose_process_died_is_not_begun_again_after_the_minutes(tmp_path: Path) -> None:
    study = synthetic.study()
    cell = study.cell(study.locked)
    cells = TimedCells(Store(tmp_path), 1.0, None, started=-1e9)
    crashed = Store(tmp_path).write(cell, synthetic.result("crashed", target=0.6))
    cells.known[cell.key] = crashed
    with pytest.raises(OutOfTimeError):
        cells.run(synthetic.Pretended(synthetic.holds), [cell])
    assert cells.likely(lambda run: run([cell]), [cell]) == []


def test_leaving_ends_a_process_that_is_just_being_started(toy_model: Path) -> None:
    """The cell would run for an hour."""
    (cell,) = grids.cells(toy_model, 1)

    def leave() -> None:
        with Pool(LocalExecutor(1, grids.the_first_never_ends)) as pool:
            pool.begin(cell)

    thread = threading.Thread(target=leave, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive()


def test_a_process_that_cannot_be_started_is_a_crash(toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(multiprocessing.get_context("forkserver").Process, "start", fail)
    ((_, found),) = LocalExecutor(1).run(grids.cells(toy_model, 1))
    assert found.result.outcome is Outcome.CRASHED
    assert "Cannot allocate memory" in found.result.note


def test_a_guess_that_no_plan_can_follow_is_no_guess(tmp_path: Path) -> None:
    """A plan may count on what a guess has not; that is no fault of the certificate's."""
    study = synthetic.study()
    cell, other = (study.cell(study.locked, lr=lr) for lr in (1e-4, 1e-5))
    ((_, finished),) = synthetic.Pretended(synthetic.holds).run([other])
    seen = [Store(tmp_path).write(other, finished)]

    def asks(run: Any) -> None:
        run([other])
        run([cell, study.cell(study.locked, lr=1e-6)])

    def breaks(run: Any) -> None:
        run([cell])
        raise AssertionError

    known = {one.key: one for one in seen}
    found = ahead.asked_next(asks, lambda one: known.get(one.key), [cell], seen)
    assert [one.attack.recipe.lr for one in found] == [1e-6]
    assert ahead.asked_next(breaks, lambda one: known.get(one.key), [cell], seen) == []


@pytest.mark.parametrize("rates", [(1e-6, 1e-5), (1e-5, 1e-6), (1e-2, 3e-5), (1e-5, 1e-2)], ids=str)
def test_the_guess_is_the_finished_cell_at_the_nearest_rate(rates: tuple[float, float], tmp_path: Path) -> None:
    """Both stall, with other scores; the plan asks for what the score says. On a logarithmic scale, 1e-4 is between."""
    study, store, scores = synthetic.study(), Store(tmp_path), iter((0.3, 0.5))
    near = min(rates, key=lambda lr: abs(math.log(lr / 1e-4)))
    seen = [
        store.write(cell, synthetic.result(f"stall {next(scores)}", target=0.6))
        for cell in (study.cell(study.locked, lr=lr) for lr in rates)
    ]

    def asks(run: Any) -> None:
        (found,) = run([study.cell(study.locked, lr=1e-4)])
        assert found.result.best is not None
        run([study.cell(study.locked, lr=found.result.best.score)])

    found = ahead.asked_next(asks, lambda one: None, [study.cell(study.locked, lr=1e-4)], seen)
    assert [one.attack.recipe.lr for one in found] == [(0.3, 0.5)[rates.index(near)]]
