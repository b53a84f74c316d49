"""Working ahead: the same certificate in less time, with nothing run twice."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import synthetic

from specdef.certify import ahead
from specdef.certify.cell import Cell
from specdef.certify.certificate import Certificate
from specdef.certify.certify_study import certify_study
from specdef.certify.effort import QUICK, STANDARD, THOROUGH, Effort
from specdef.certify.events import CellEvent
from specdef.certify.executors.local import Finished, LocalExecutor
from specdef.certify.store import Store
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
        self._ends: dict[str, tuple[float, Cell]] = {}
        executor.pools.append(self)

    def __enter__(self) -> Simulated:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.clear()

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

    def finished(self) -> list[Finished]:
        key = min(self._ends, key=lambda one: self._ends[one][0])
        self.now, cell = self._ends.pop(key)
        found = list(synthetic.Pretended(self.executor.behaviour).run([cell]))
        self.died |= {one.key for one, finished in found if finished.result.outcome is Outcome.CRASHED}
        return found


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


def test_a_run_that_goes_on_takes_up_what_was_finished_ahead(certify: Any, tmp_path: Path) -> None:
    certify(tmp_path, synthetic.holds, workers=3, threats=("T0",))
    before = {path.stem for path in (tmp_path / "cells").iterdir()}
    _, pool = certify(tmp_path, synthetic.holds, workers=3, threats=("T0", "T1"))
    assert not before & set(pool.begun)


def test_cells_say_that_they_wait_when_they_are_asked_for(certify: Any, tmp_path: Path) -> None:
    told: list[CellEvent] = []
    executor = Timed(2, listen=told.append)
    certify_study(synthetic.study(), Store(tmp_path), executor, threats=("T0",))
    assert {event.key for event in told} <= set(executor.pools[0].begun)


def test_a_guess_that_leaves_no_certificate_is_no_guess(certify: Any, tmp_path: Path) -> None:
    """Of a task that the undefended model does not learn."""
    executor = Timed(2, behaviour=synthetic.holds)
    study = dataclasses.replace(synthetic.study(), window=(3e-5, 3e-6, 3e-7))
    with pytest.raises(SpecdefError, match="measures nothing on this model"):
        certify_study(study, Store(tmp_path), executor, threats=("T0",))
    assert json.loads((tmp_path / "cells" / f"{executor.pools[0].begun[0]}.json").read_text())


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
