"""Controls of the task: what its form alone is worth. A score they raise is not the lock's to keep down."""

from __future__ import annotations

from dataclasses import replace

from specdef.certify.cell import digest_of
from specdef.certify.findings import Findings
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan
from specdef.certify.trials import original_cell, trying


def control_task(study: Study, findings: Findings) -> Plan:
    """Every control of the task on the undefended model, at the lowest learning rate at which the task is learned.

    The gentlest one: at a rate that ruins one seed in two, a control's score may be chance because the model is ruined.
    """
    if not findings.working or not study.task.controls:
        return
    (trial,) = trying([min(findings.working)])
    yield [original_cell(controlled(study, name), trial.attack(study)) for name in study.task.controls]


def controlled(study: Study, control: str) -> Study:
    """The study with one of its task's controls to train on."""
    task = study.task.control(control)
    spec = replace(study.spec, control=control)
    return replace(study, spec=spec, task=task, task_digest=digest_of(task.fingerprint()))
