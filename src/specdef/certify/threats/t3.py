"""T3: adapters, and training only a part of the weights."""

from __future__ import annotations

import math
import re
from typing import ClassVar

from specdef.attacks.interventions.freeze import Freeze
from specdef.attacks.interventions.lora import Lora
from specdef.certify.findings import Findings, learning_rate
from specdef.certify.rates import rounded
from specdef.certify.stages import Stage, run_stages
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan, ThreatModel
from specdef.certify.threats.t1 import KIND as T1
from specdef.certify.trials import trying

ADAPTER_LR = (1e-3, 3e-3, 3e-4)


class AdaptersAndFreezing(ThreatModel):
    """LoRA on all linear layers the library finds, on some of them, and training only a part of the weights."""

    name: ClassVar[str] = "T3"
    title: ClassVar[str] = "adapters, and training only a part of the weights"

    def cells(self, study: Study, findings: Findings) -> Plan:
        """Adapters at ordinary rates, parts of the weights, adapters at lower rates."""
        best = findings.best(*T1.parts)
        middle = learning_rate(best) if best is not None else findings.working[0]
        names = study.part_names
        everything, queries = Lora(), Lora(targets=names.query_value)
        ordinary = trying(ADAPTER_LR[:2], everything)
        stages = [Stage("LoRA on all linear layers", ordinary)]
        if study.locked_modules:
            frozen = Freeze("|".join(re.escape(name) for name in study.locked_modules))
            stages.append(Stage("freezing the locked layers", trying(findings.working[:2], frozen)))
        span = math.log10(max(study.multiplier, 1.0))
        lower = [rounded(1e-3 / 10 ** (share * span)) for share in (0.25, 0.5, 0.75, 1.0)]
        embeddings, mlps = (Freeze(rf"^(?!.*{part})") for part in (names.embeddings, names.mlp))
        stages += [
            Stage(f"LoRA on {' and '.join(names.query_value)}", trying(ADAPTER_LR[1:], queries)),
            Stage("training the embeddings only", trying((1e-3, middle), embeddings)),
            Stage("training the MLPs only", trying((findings.working[0], middle), mlps)),
            Stage("LoRA on all linear layers, lower rates", trying(dict.fromkeys(lower), everything), ordinary),
        ]
        yield from run_stages(study, findings, self, stages)


KIND = AdaptersAndFreezing()
