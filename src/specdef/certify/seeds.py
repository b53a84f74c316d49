"""Other seeds: the attack that did most harm, tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from specdef.attacks.base import Attack
from specdef.certify.cell import Cell
from specdef.certify.findings import Findings, is_broken, scores_of, success, worst_case
from specdef.certify.statistics import TEST, Decision
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan

SEEDS = (1, 2)
"""Beside the ordinary recipe's."""


def other_seeds(study: Study, findings: Findings, name: str, cell: Callable[[Attack], Cell]) -> Plan:
    """`three_seeds`, and from effort ``standard`` on more while the interval of the score straddles the target."""
    yield from three_seeds(study, findings, name, cell)
    if study.effort.guided:
        yield from _until_decided(study, findings, name, cell)


def three_seeds(study: Study, findings: Findings, name: str, cell: Callable[[Attack], Cell]) -> Plan:
    """The most successful attack of a threat model with two more seeds.

    Where these put another attack first, that one gets them too, once. An attack that got nowhere is not repeated.

    Args:
        study: what is certified.
        findings: what was found so far.
        name: where in `findings` the attacks stand.
        cell: makes a cell of an attack.
    """
    for _ in range(2):
        group = worst_case(findings.results.get(name, []))
        if not group or len({found.attack.recipe.seed for found in group}) > 1:
            break
        if not any(map(is_broken, group)) and success(group)[1] < study.halfway:
            findings.skip(name, "other seeds: every score within the utility budget is nearer chance than target")
            return
        yield _repeated(group[0].attack, SEEDS, cell)


def _until_decided(study: Study, findings: Findings, name: str, cell: Callable[[Attack], Cell]) -> Plan:
    """More seeds, look by look, while the interval of the worst attack's score straddles the target."""
    for _ in TEST.seeds:
        group = worst_case(findings.results.get(name, []))
        look = TEST.next_look(len(group))
        scores = scores_of(group)
        unknown = not scores or scores[0].by_group is None
        if look is None or unknown or TEST.decide(scores, study.task.target) is not Decision.OPEN:
            return
        first = 1 + max(found.attack.recipe.seed for found in group)
        yield _repeated(group[0].attack, range(first, first + look - len(group)), cell)


def _repeated(attack: Attack, seeds: Iterable[int], cell: Callable[[Attack], Cell]) -> list[Cell]:
    return [cell(replace(attack, recipe=replace(attack.recipe, seed=seed))) for seed in seeds]
