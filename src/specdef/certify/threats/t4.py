"""T4: attacks that know what a lock is: they rewrite weights first, or train around what looks inflated."""

from __future__ import annotations

from typing import ClassVar

from specdef.attacks.interventions.channel_rates import ChannelRates
from specdef.attacks.interventions.inject_layers import InjectLayers
from specdef.attacks.interventions.merge import Merge
from specdef.attacks.interventions.prune import Prune
from specdef.attacks.interventions.rebalance import Rebalance
from specdef.attacks.interventions.smallest_gradients import SmallestGradients
from specdef.attacks.scaled_steps import RATED_OPTIMIZERS
from specdef.certify.findings import UNLOCKED, Findings, learning_rate
from specdef.certify.stages import Stage, run_stages
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan, ThreatModel
from specdef.certify.threats.t0 import KIND as T0
from specdef.certify.trials import UNCLIPPED, Trial
from specdef.training.recipe import Recipe


class UndoAttacks(ThreatModel):
    """Undoing the lock in the weights, or training around it, at the undefended model's best learning rate."""

    name: ClassVar[str] = "T4"
    title: ClassVar[str] = "undoing the lock in the weights, or training around it"
    reads: ClassVar[tuple[str, ...]] = (T0.name,)

    def cells(self, study: Study, findings: Findings) -> Plan:
        """What keeps the function and costs seconds first, what harms the model last."""
        if findings.is_open(T0.name, study.recipe.eval_every):
            findings.skip(self.name, "undo attacks: ordinary fine-tuning breaks the model as it is")
            return
        best = findings.best(UNLOCKED)
        at_best = {"lr": learning_rate(best) if best is not None else findings.working[0]}
        undoing = [Trial(at_best, (one,)) for one in (Merge(), Rebalance())]
        layers = [Trial(at_best, (InjectLayers(factors=factors),)) for factors in (2, 4)]
        rated = {} if study.recipe.optimizer in RATED_OPTIMIZERS else {"optimizer": RATED_OPTIMIZERS[0]}
        rates = Trial({**at_best, **rated, **UNCLIPPED}, (ChannelRates(),))
        each = {"clip_each": True, "max_grad_norm": study.recipe.max_grad_norm or Recipe.max_grad_norm}
        gradients = [Trial(at_best, (SmallestGradients(share),)) for share in (0.9, 0.5)]
        stages = [
            Stage("merging and rebalancing", undoing),
            Stage("rebalancing head by head", [Trial(at_best, (Rebalance(form="svd"),))]),
            Stage("layer injection", layers),
            Stage("a learning rate per channel", [rates]),
            Stage("training what has small gradients", gradients),
            Stage("clipping tensor by tensor", [Trial({**at_best, **each})]),
            Stage("eps scaled by the multiplier", [Trial({**at_best, **rated, "eps": 1e-8 * study.multiplier})]),
            Stage("pruning what looks scaled", [Trial(at_best, (Prune(),))]),
        ]
        yield from run_stages(study, findings, self, stages)


KIND = UndoAttacks()
