"""The undefended model: what the task asks, and the reference for everything else."""

from __future__ import annotations

from functools import partial

from specdef.certify.findings import UNLOCKED, Findings, is_broken, learning_rate, steps_of
from specdef.certify.seeds import three_seeds
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan
from specdef.certify.trials import original_cell, trying


def calibrate(study: Study, findings: Findings) -> Plan:
    """Fine-tune the undefended model over the ordinary window of learning rates, and note where that works.

    The quickest rate gets two more seeds, for the steps that a defence is compared with. Whether its score is above the
    target is no verdict, and is not decided: where the undefended model is itself certified, T0 does so.
    """
    found = yield [original_cell(study, trial.attack(study)) for trial in trying(study.window)]
    starts = [cell.result.evaluations[0].utility for cell in found if cell.result.evaluations]
    findings.reference = starts[0] if starts else None
    broken = [cell for cell in found if is_broken(cell)]
    findings.working = tuple(sorted(map(learning_rate, broken)))
    if broken:
        findings.steps = int(min(map(steps_of, broken)))
        yield from three_seeds(study, findings, UNLOCKED, partial(original_cell, study))
