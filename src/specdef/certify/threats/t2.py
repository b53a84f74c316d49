"""T2: everything a recipe may hold besides the learning rate."""

from __future__ import annotations

import math
from typing import ClassVar

from specdef.certify.cell import FIRST_KIND
from specdef.certify.findings import Findings, learning_rate
from specdef.certify.rates import rounded
from specdef.certify.stages import Stage, run_stages
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan, ThreatModel
from specdef.certify.threats.t1 import KIND as T1
from specdef.certify.trials import UNCLIPPED, Trial, trying

ORDINARY_LR = {
    "adamw": 1e-4,
    "sgd": 0.1,
    "adafactor": 1e-2,
    "lion": 3e-5,
    "muon": 3e-4,
    "sophia": 1e-2,
    "adahessian": 0.1,
    "kron": 1e-4,
    "soap": 3e-4,
    "lbfgs": 0.1,
}
"""Where each further optimizer is tried first; then downwards, as with Adam."""
CLASSIFIER_LR = {"adadelta": 1.0, "xmat": 1e-2, "kfac": 1e-2}
"""The same, of those that are tried on classifiers only, after the others."""


class Optimizers(ThreatModel):
    """Clipping, batch size, accumulation, then other optimizers, each with its own learning-rate search."""

    name: ClassVar[str] = "T2"
    title: ClassVar[str] = "other optimizers, clipping, batch size and schedule"

    def cells(self, study: Study, findings: Findings) -> Plan:
        """Stages around the best learning rate found so far."""
        best = findings.best(*T1.parts)
        middle = learning_rate(best) if best is not None else findings.working[0]
        at_middle = {"lr": middle}
        clipping = [Trial({**at_middle, **UNCLIPPED}), Trial({**at_middle, "batch_size": 16})]
        steady = [
            Trial({**at_middle, "gradient_accumulation_steps": 2}),
            Trial({**at_middle, "schedule": "constant", "warmup": 0.0}),
        ]
        # The best rate found may be far below any at which the undefended model learns.
        ways = (("clipping and batch size", clipping), ("accumulation and a constant schedule", steady))
        stages = [Stage(label, tried, [one.at(findings.working[0]) for one in tried]) for label, tried in ways]
        span = math.log10(max(study.multiplier, 1.0))
        further = ORDINARY_LR if study.model_kind == FIRST_KIND else {**ORDINARY_LR, **CLASSIFIER_LR}
        for name, ordinary in further.items():
            if name == study.recipe.optimizer:
                continue  # what T1 searched
            rates = {rounded(ordinary / 10 ** (share * span)) for share in (0.0, 0.5, 1.0)}
            stages.append(Stage(name, trying(sorted(rates, reverse=True), optimizer=name)))
        yield from run_stages(study, findings, self, stages)


KIND = Optimizers()
