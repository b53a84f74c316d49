"""T0: ordinary fine-tuning, as someone would do who does not know of a lock."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from specdef.certify.findings import Findings
from specdef.certify.seeds import other_seeds
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan, ThreatModel
from specdef.certify.trials import locked_cell, trying


class DefaultRecipes(ThreatModel):
    """The learning rates of the ordinary window at which the undefended model learns the task."""

    name: ClassVar[str] = "T0"
    by_default: ClassVar[bool] = True
    title: ClassVar[str] = "ordinary fine-tuning at the usual learning rates"

    def cells(self, study: Study, findings: Findings) -> Plan:
        """The window, and other seeds."""
        yield [locked_cell(study, findings, trial.attack(study)) for trial in trying(findings.working)]
        for lr in sorted(set(study.window) - set(findings.working)):
            findings.skip(self.name, f"learning rate {lr:g}: the undefended model does not learn the task there")
        yield from other_seeds(study, findings, self.name, partial(locked_cell, study, findings))


KIND = DefaultRecipes()
