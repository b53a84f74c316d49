"""Other seeds: the attack that did most harm, tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from specdef.attacks.base import Attack
from specdef.certify.cell import Cell
from specdef.certify.findings import Findings, is_broken, success, worst_case
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan

SEEDS = (1, 2)
"""Beside the ordinary recipe's."""


def other_seeds(study: Study, findings: Findings, name: str, cell: Callable[[Attack], Cell]) -> Plan:
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
            return
        if not any(map(is_broken, group)) and success(group)[1] < study.halfway:
            findings.skip(name, "other seeds: every score within the utility budget is nearer chance than target")
            return
        attack = group[0].attack
        yield [cell(replace(attack, recipe=replace(attack.recipe, seed=seed))) for seed in SEEDS]
