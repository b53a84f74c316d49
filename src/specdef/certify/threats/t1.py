"""T1: a search for the learning rate, in both directions."""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

from specdef.certify.findings import Findings, is_broken, learning_rate, steps_of
from specdef.certify.rates import rounded
from specdef.certify.search import search_rates, try_longer
from specdef.certify.seeds import other_seeds
from specdef.certify.study import MultiplierSource, Study
from specdef.certify.threat_model import Plan, ThreatModel
from specdef.certify.threats.t0 import KIND as T0
from specdef.certify.trials import Trial, locked_cell, trying

ABOVE = 3.0
"""How far above the window learning rates are searched as well."""


class LearningRateSearch(ThreatModel):
    """Learning rates down to the ordinary ones over the multiplier and ten times below, then around the best."""

    name: ClassVar[str] = "T1"
    by_default: ClassVar[bool] = True
    title: ClassVar[str] = f"{T0.name} and a search for the learning rate"
    reads: ClassVar[tuple[str, ...]] = (T0.name,)

    def cells(self, study: Study, findings: Findings) -> Plan:
        """A decade apart, then as closely as the effort says, twice closer around the best, and other seeds."""
        if findings.is_open(T0.name, study.recipe.eval_every):
            findings.skip(self.name, "learning rates outside the window: the window itself breaks the lock")
            return
        low, high = findings.working[0], findings.working[-1]
        decades = math.ceil(math.log10(study.multiplier)) + 1
        rates = [high * ABOVE, *(low / 10.0**power for power in range(1, decades + 1))]
        make = partial(locked_cell, study, findings)
        yield [make(trial.attack(study)) for trial in trying(map(rounded, rates))]
        guided = study.effort.guided
        if guided:
            added = yield from search_rates(study, findings, self.parts, Trial(), rates, make)
            rates += map(learning_rate, added)
        if study.multiplier_source is MultiplierSource.MANIFEST:
            claim = f"the manifest claims a multiplier of {study.multiplier:g}"
            findings.skip(self.name, f"learning rates below {min(rates):.3g}: {claim}")
        for spread in (10**0.5, 10**0.25):
            best = findings.best(*self.parts)
            if best is None or (is_broken(best) and findings.steps is not None and steps_of(best) <= findings.steps):
                break
            if guided and not is_broken(best):
                break
            middle = learning_rate(best)
            around = map(rounded, (middle * spread, middle / spread))
            yield [make(trial.attack(study)) for trial in trying(around)]
        yield from try_longer(study, findings, self.parts, make)
        yield from other_seeds(study, findings, self.name, make)


KIND = LearningRateSearch()
