"""Made-up locks that break in one narrow window of learning rates, and how many of them each effort finds.

``PYTHONPATH=tests/report python tests/certify/windows.py`` prints the tables of docs/threat-models.md; nothing trains.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import synthetic

from specdef.attacks.interventions.lora import Lora
from specdef.certify.calibration import calibrate
from specdef.certify.cell import Cell
from specdef.certify.cell_result import CellResult, Measured
from specdef.certify.effort import EFFORTS, Effort
from specdef.certify.findings import UNLOCKED, Findings, is_broken
from specdef.certify.result import StoredCell
from specdef.certify.study import Study
from specdef.certify.threat_model import THREATS, Plan, follow, in_order

EXACT = 2.0**20
WIDTH = 1.3
TARGET, CHANCE = 0.6, 0.25
NOT_MEASURED, ALL_LINEARS = Measured(), Lora()
Shape = Callable[[float, float], str]
"""(learning rate, the window's lower end) -> what the lock comes to outside the window."""


@dataclass(frozen=True)
class Searched:
    """One attack whose learning rates are searched, and the range that its first rates span."""

    threat: str
    lowest: float
    highest: float
    optimizer: str = "adamw"
    adapter: bool = False

    def is_of(self, cell: Cell) -> bool:
        wanted = (ALL_LINEARS,) if self.adapter else ()
        return (cell.attack.interventions, cell.attack.recipe.optimizer) == (wanted, self.optimizer)


T0 = Searched("T0", 1e-4, 1e-3)
T1 = Searched("T1", 1e-12, 3e-3)
MUON = Searched("T2", 3e-4 / EXACT, 3e-4, optimizer="muon")
ADAPTERS = Searched("T3", 1e-3 / EXACT, 3e-3, adapter=True)
UNDO = Searched("T4", 1e-4, 1e-3)


def flat(lr: float, low: float) -> str:
    """Far from the target right beside the window: no score says where it is."""
    return "stall 0.3" if lr < low else "collapse 0.3"


def sloped(lr: float, low: float) -> str:
    """The score falls with the distance from the window, to half its height in a factor of ten."""
    away = abs(math.log10(lr / low))
    return f"{'stall' if lr < low else 'collapse'} {CHANCE + (TARGET - CHANCE - 0.01) * 0.5**away:.4f}"


def between_stalls(lr: float, low: float) -> str:
    """Unlearned on both sides; the model is ruined from a factor of 300 above the window on."""
    return "stall 0.3" if lr < low * 300 else "collapse 0.3"


def between_sloped_stalls(lr: float, low: float) -> str:
    """The same with a score that falls with the distance from the window."""
    return sloped(lr, low).replace("collapse", "stall") if lr < low * 300 else "collapse 0.3"


def between_collapses(lr: float, low: float) -> str:
    """Ruined on both sides; unlearned from a factor of 300 below the window on."""
    return "stall 0.3" if lr < low / 300 else "collapse 0.3"


SHAPES = (flat, sloped, between_stalls, between_sloped_stalls, between_collapses)


def run(searched: Searched, effort: Effort, behaviour: synthetic.Behaviour, study: Study | None = None) -> Findings:
    """The findings of a certificate of one threat model; results are held in memory."""
    study, findings = study or _study(effort), Findings()

    def stage(name: str, plan: Plan) -> None:
        for found in follow(plan, lambda cells: [finished(cell, behaviour) for cell in cells]):
            findings.results.setdefault(name, []).extend(found)

    stage(UNLOCKED, calibrate(study, findings))
    for threat in in_order([searched.threat]):
        stage(threat.name, threat.cells(study, findings))
    return findings


@functools.cache
def _study(effort: Effort) -> Study:
    return synthetic.study(multiplier=EXACT, effort=effort)


def finished(cell: Cell, behaviour: synthetic.Behaviour) -> StoredCell:
    kind = behaviour(cell) if cell.subject.digest.startswith("b") else synthetic.unlocked(cell)
    return StoredCell(cell.key, cell.identity(), _result(kind, cell.attack.recipe.seed), NOT_MEASURED)


@functools.cache
def _result(kind: str, seed: int) -> CellResult:
    return synthetic.result(kind, target=TARGET, seed=seed).result


def locked(searched: Searched, low: float, shape: Shape) -> synthetic.Behaviour:
    """A lock that one attack breaks between `low` and `WIDTH` times that, and that holds against everything else."""

    def behaviour(cell: Cell) -> str:
        lr = cell.attack.recipe.lr
        if not searched.is_of(cell):
            return synthetic.holds(cell)
        return "broken 20" if low < lr < low * WIDTH else shape(lr, low)

    return behaviour


def windows(searched: Searched, count: int, seed: int = 0) -> list[float]:
    """Lower ends of windows, log-uniform over the range of the first rates."""
    draw = random.Random(seed)
    low, high = math.log(searched.lowest), math.log(searched.highest / WIDTH)
    return [math.exp(draw.uniform(low, high)) for _ in range(count)]


def is_found(searched: Searched, effort: Effort, low: float, shape: Shape) -> bool:
    findings = run(searched, effort, locked(searched, low, shape))
    best = findings.best(*THREATS.get(searched.threat).parts)
    return best is not None and is_broken(best)


def share(searched: Searched, effort: Effort, shape: Shape, count: int = 200) -> float:
    """The share of windows that are found."""
    with only(searched):
        return sum(is_found(searched, effort, low, shape) for low in windows(searched, count)) / count


@contextmanager
def only(searched: Searched) -> Iterator[None]:
    """Leave out the optimizers that are not searched: they hold, and cost time."""
    with mock.patch.dict("specdef.certify.threats.t2.ORDINARY_LR", {searched.optimizer: 3e-4}, clear=True):
        yield


def cost(threat: str, effort: Effort, behaviour: synthetic.Behaviour) -> int:
    """Cells of a certificate of one threat model and those it reads, the undefended model's included."""
    findings = run(Searched(threat, 0.0, 0.0), effort, behaviour)
    return len({cell.key for found in findings.results.values() for cell in found})


def _row(*entries: object) -> None:
    print("| " + " | ".join(map(str, entries)) + " |")


def main(shapes: Sequence[Shape] = SHAPES) -> None:
    for searched in (T1, MUON, ADAPTERS):
        for shape in shapes:
            found = [f"{share(searched, effort, shape):.1%}" for effort in EFFORTS.values()]
            _row(searched.threat, shape.__name__, *found)
    low = 1e-7
    for threat in THREATS.names():
        holds = [cost(threat, effort, synthetic.holds) for effort in EFFORTS.values()]
        _row(threat, *holds)
    for searched in (T1, MUON, ADAPTERS):
        falls = [cost(searched.threat, effort, _wide(searched, low)) for effort in EFFORTS.values()]
        _row(searched.threat, *falls)


def _wide(searched: Searched, low: float) -> synthetic.Behaviour:
    """A lock that one attack breaks over a factor of ten."""

    def behaviour(cell: Cell) -> str:
        lr = cell.attack.recipe.lr
        if not searched.is_of(cell):
            return synthetic.holds(cell)
        return "broken 20" if low < lr < low * 10 else flat(lr, low)

    return behaviour


if __name__ == "__main__":
    main()
