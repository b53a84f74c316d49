"""T0: ordinary fine-tuning, as someone would do who does not know of a lock."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from specdef.certify.findings import Findings
from specdef.certify.search import search_rates, try_longer
from specdef.certify.seeds import other_seeds
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan, ThreatModel
from specdef.certify.trials import Trial, locked_cell, trying


class DefaultRecipes(ThreatModel):
    """The learning rates of the ordinary window at which the undefended model learns the task."""

    name: ClassVar[str] = "T0"
    by_default: ClassVar[bool] = True
    title: ClassVar[str] = "ordinary fine-tuning at the usual learning rates"

    def cells(self, study: Study, findings: Findings) -> Plan:
        """The window, rates between as closely as the effort says, and other seeds."""
        make = partial(locked_cell, study, findings)
        yield [make(trial.attack(study)) for trial in trying(findings.working)]
        if study.effort.guided:
            yield from search_rates(study, findings, self.parts, Trial(), findings.working, make, widen=False)
        for lr in sorted(set(study.window) - set(findings.working)):
            findings.skip(self.name, f"learning rate {lr:g}: the undefended model does not learn the task there")
        yield from try_longer(study, findings, self.parts, make)
        yield from other_seeds(study, findings, self.name, make)


KIND = DefaultRecipes()
