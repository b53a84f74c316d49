"""T6: ordinary tools of the literature, adapted to what a lock does to them.

They belong beside T3 (adapters) and T4 (who knows what a lock is). They are a threat model of their own because the
plans of T3 and T4 are what committed certificates were made of: one more stage there would leave every one of those
incomplete. T5 is not their place either: it stops at its first attack on a lock, which undoes it, and needs base
weights, as these do not.
"""

from __future__ import annotations

from typing import ClassVar

from specdef.attacks.interventions.energy_lora import EnergyLora
from specdef.attacks.interventions.lora_plus import LoraPlus
from specdef.attacks.interventions.tensor_rates import TensorRates
from specdef.attacks.scaled_steps import RATED_OPTIMIZERS
from specdef.certify.findings import UNLOCKED, Findings, learning_rate
from specdef.certify.stages import Stage, run_stages
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan, ThreatModel
from specdef.certify.threats.t0 import KIND as T0
from specdef.certify.trials import Trial, trying

ADAPTER_LR = (1e-3, 3e-3)
"""Of LoRA. LoRA+ is tried at half of each, as its paper advises."""
OBFUSCATION = {"gradient_accumulation_steps": 10, "batch_size": 64}
"""The papers' test for gradients that are only noisy: averaged over many samples, such gradients train again."""


class AdaptedAttacks(ThreatModel):
    """Adapters and learning rates that take account of the scales a lock leaves, and gradients of many samples."""

    name: ClassVar[str] = "T6"
    title: ClassVar[str] = "adapters and learning rates adapted to a lock"
    reads: ClassVar[tuple[str, ...]] = (T0.name,)
    on_request: ClassVar[bool] = True

    def cells(self, study: Study, findings: Findings) -> Plan:
        """Adapters first; what costs most, large batches, last."""
        if findings.is_open(T0.name, study.recipe.eval_every):
            findings.skip(self.name, "adapted attacks: ordinary fine-tuning breaks the model as it is")
            return
        best = findings.best(UNLOCKED)
        at_best = {"lr": learning_rate(best) if best is not None else findings.working[0]}
        rated = {} if study.recipe.optimizer in RATED_OPTIMIZERS else {"optimizer": RATED_OPTIMIZERS[0]}
        stages = [
            Stage("LoRA with inputs of unit energy", trying(ADAPTER_LR, EnergyLora())),
            Stage("LoRA+", trying([lr / 2 for lr in ADAPTER_LR], LoraPlus(), **rated)),
            Stage("a learning rate per tensor", [Trial({**at_best, **rated}, (TensorRates(),))]),
            Stage("gradients averaged over many samples", [Trial({**at_best, **OBFUSCATION})]),
        ]
        yield from run_stages(study, findings, self, stages)


KIND = AdaptedAttacks()
