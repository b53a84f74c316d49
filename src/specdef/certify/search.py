"""The search for learning rates that break a lock, as far as the effort of the study says."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from specdef.attacks.base import Attack
from specdef.certify.cell import Cell
from specdef.certify.findings import Findings, best_of, is_broken, is_valid, learning_rate, worst_case
from specdef.certify.rates import Point, Reach, further_rates
from specdef.certify.result import StoredCell
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan
from specdef.certify.trials import Trial
from specdef.training.outcome import Outcome

Make = Callable[[Attack], Cell]
More = Generator[list[Cell], list[StoredCell], list[StoredCell]]
"""Yields batches of cells, receives their results, and returns all of these."""


def search_rates(
    study: Study,
    findings: Findings,
    names: Sequence[str],
    trial: Trial,
    rates: Iterable[float],
    make: Make,
    *,
    widen: bool = True,
) -> More:
    """Further rates of one attack until its neighbours are close enough or one rate breaks the lock.

    Args:
        study: what is certified, and with which effort.
        findings: what was found so far.
        names: where in `findings` this attack at other rates stands.
        trial: the attack, at any rate.
        rates: those it was tried at first; the range is measured from them.
        make: makes a cell of an attack.
        widen: whether rates outside `rates` are tried.
    """
    effort, first = study.effort, sorted(rates)
    reach = Reach(first[0], first[-1], study.halfway)
    if widen:
        lowest = min(first[0], first[-1] / study.multiplier)
        reach = replace(reach, lowest=lowest / effort.below, highest=first[-1] * effort.above)
    if len(first) == 1:  # an attack at one rate is no search for rates: around it, not everywhere
        effort = replace(effort, spacing=math.inf)
    added: list[StoredCell] = []
    while more := further_rates(_points(study, findings, names, trial), effort, reach):
        added += yield [make(trial.at(lr).attack(study)) for lr in more]
    return added


def _points(study: Study, findings: Findings, names: Sequence[str], trial: Trial) -> list[Point]:
    """What an attack came to at every rate it was tried at."""
    attack, found = trial.attack(study), []
    for cell in (cell for name in names for cell in findings.results.get(name, [])):
        other = cell.attack
        if replace(other, recipe=replace(other.recipe, lr=attack.recipe.lr)) == attack:
            score = best_of(cell).score if is_valid(cell) else 0.0
            found.append(Point(learning_rate(cell), cell.result.outcome, score))
    return found


def search_thirds(study: Study, trials: Sequence[Trial], found: Sequence[StoredCell], make: Make) -> More:
    """The search without guidance: of trials that differ in their rate alone, gaps are cut in three, one at a time."""
    added: list[StoredCell] = []
    first, *others = (trial.but_rate for trial in trials)
    if any(other != first for other in others):
        return added
    while (gap := _gap([*found, *added], study.effort.factor)) is not None:
        low, high = gap
        third = (high / low) ** (1 / 3)
        added += yield [make(first.at(lr).attack(study)) for lr in (low * third, high / third)]
    return added


def _gap(cells: Sequence[StoredCell], factor: float) -> tuple[float, float] | None:
    """Neighbouring learning rates further apart than `factor`, of which the lower stalls and the higher collapses."""
    outcomes = {learning_rate(cell): cell.result.outcome for cell in cells}
    if Outcome.BROKEN in outcomes.values():
        return None
    for low, high in pairwise(sorted(outcomes)):
        if (outcomes[low], outcomes[high]) == (Outcome.STALL, Outcome.COLLAPSE) and high > low * factor:
            return low, high
    return None


def try_longer(study: Study, findings: Findings, names: Sequence[str], make: Make) -> Plan:
    """The best run that stalls, with more steps, where the effort asks for that and nothing broke the lock."""
    cells = [cell for name in names for cell in findings.results.get(name, [])]
    best = worst_case(cell for cell in cells if cell.result.outcome is Outcome.STALL)
    if study.effort.longer == 1 or not best or any(map(is_broken, cells)):
        return
    attack = best[0].attack
    steps = attack.recipe.steps * study.effort.longer
    yield [make(replace(attack, recipe=replace(attack.recipe, steps=steps)))]
