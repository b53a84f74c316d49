"""YOURS: attacks of the user's own, beside what the other threat models try."""

from __future__ import annotations

from typing import ClassVar

from specdef.certify.attack_plan import AttackPlan
from specdef.certify.findings import Findings
from specdef.certify.rates import rounded
from specdef.certify.stages import Stage, run_stages
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan, ThreatModel
from specdef.certify.trials import Trial


class OwnAttacks(ThreatModel):
    """Each attack of the file at its own learning rate and at that over the multiplier, then refined in between."""

    name: ClassVar[str] = "YOURS"
    title: ClassVar[str] = "attacks of your own"
    on_request: ClassVar[bool] = True
    own: ClassVar[bool] = True

    def cells(self, study: Study, findings: Findings) -> Plan:
        """A stage an attack. The rate over the multiplier is for a lock: an undefended model is tried at its own."""
        yield from run_stages(study, findings, self, [_stage(study, one) for one in study.also])


def _stage(study: Study, attack: AttackPlan) -> Stage:
    own = Trial(attack.changes, attack.interventions)
    if study.multiplier <= 1:
        return Stage(attack.label, [own])
    lr = rounded(own.attack(study).recipe.lr / study.multiplier)
    return Stage(attack.label, [own, Trial({**attack.changes, "lr": lr}, attack.interventions)], [own])


KIND = OwnAttacks()
