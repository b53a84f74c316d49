"""Stages: a threat model that tries one thing after another until the lock breaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from specdef.certify.findings import CONTROLS, UNCOUNTED, Findings, is_broken, is_valid
from specdef.certify.result import StoredCell
from specdef.certify.search import More, search_rates, search_thirds, try_longer
from specdef.certify.seeds import other_seeds
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan, ThreatModel
from specdef.certify.trials import Trial, by_rate, locked_cell, original_cell


@dataclass(frozen=True)
class Stage:
    """What is tried together.

    Attributes:
        label: for people.
        trials: the attacks.
        controls: what is tried on the undefended model instead, where the trials' own rates are meant for a lock: the
            same attacks at rates at which they work without one.
    """

    label: str
    trials: Sequence[Trial]
    controls: Sequence[Trial] = ()


def run_stages(study: Study, findings: Findings, threat: ThreatModel, stages: Sequence[Stage]) -> Plan:
    """Stage after stage until one breaks the lock without being slowed, with the seeds that its verdict is drawn from.

    A stage that does not is tried on the undefended model too: an attack that fails there is no test of a lock.
    """
    name, make = threat.name, partial(locked_cell, study, findings)
    for number, stage in enumerate(stages):
        found = yield [locked_cell(study, findings, trial.attack(study)) for trial in stage.trials]
        if not findings.is_open(name, study.recipe.eval_every):
            found = [*found, *(yield from _searched(study, findings, name, stage, found))]
        if findings.is_open(name, study.recipe.eval_every):
            yield from other_seeds(study, findings, name, make)
        if findings.is_open(name, study.recipe.eval_every):
            for left in stages[number + 1 :]:
                findings.skip(name, f"{left.label}: already broken")
            break
        if any(map(is_broken, found)):
            continue
        invalid = next((cell.result.note for cell in found if not is_valid(cell)), None)
        if invalid is not None and not any(map(is_valid, found)):
            findings.skip(name, f"{stage.label}: {invalid}")
        elif study.locked.digest != study.original.digest:
            yield from _control(study, findings, name, stage, {cell.key for cell in found})
    yield from try_longer(study, findings, (name,), make)
    yield from other_seeds(study, findings, name, make)


def _searched(study: Study, findings: Findings, name: str, stage: Stage, found: Sequence[StoredCell]) -> More:
    """Further rates of a stage's attacks, one after another; those of earlier stages at other rates count too."""
    make = partial(locked_cell, study, findings)
    if not study.effort.guided:
        return (yield from search_thirds(study, stage.trials, found, make))
    added: list[StoredCell] = []
    for trial, rates in by_rate(stage.trials, study):
        added += yield from search_rates(study, findings, (name, UNCOUNTED), trial, rates, make)
        if findings.is_open(name, study.recipe.eval_every):
            break
    return added


def _control(study: Study, findings: Findings, name: str, stage: Stage, keys: set[str]) -> Plan:
    """The stage on the undefended model; where it fails there, its cells do not count."""
    found = yield [original_cell(study, trial.without_lock.attack(study)) for trial in stage.controls or stage.trials]
    controls = {cell.key for cell in found}
    findings.results[CONTROLS] = [*findings.results.get(CONTROLS, []), *found]
    findings.results[name] = [cell for cell in findings.results[name] if cell.key not in controls]
    if not any(map(is_broken, found)):
        findings.drop(name, keys)
        findings.skip(name, f"{stage.label}: fails on the undefended model as well, so it says nothing")
