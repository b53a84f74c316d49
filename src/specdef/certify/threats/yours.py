"""YOURS: attacks of the user's own, beside what the other threat models try."""

from __future__ import annotations

from typing import ClassVar

from specdef.certify.findings import Findings
from specdef.certify.stages import Stage, run_stages
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan, ThreatModel
from specdef.certify.trials import Trial


class OwnAttacks(ThreatModel):
    """Each attack of the file, its learning rate refined as for every other attack."""

    name: ClassVar[str] = "YOURS"
    title: ClassVar[str] = "attacks of your own"
    on_request: ClassVar[bool] = True

    def cells(self, study: Study, findings: Findings) -> Plan:
        """A stage an attack."""
        stages = [Stage(one.label, [Trial(one.changes, one.interventions)]) for one in study.also]
        yield from run_stages(study, findings, self, stages)


KIND = OwnAttacks()
