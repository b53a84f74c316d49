"""Kinds that another package might bring: a toy intervention and a toy threat model that tries it."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from specdef.attacks.base import Intervention, Trains
from specdef.certify.findings import Findings
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan, ThreatModel
from specdef.certify.trials import locked_cell, trying


@dataclass(frozen=True)
class NormsOnly(Intervention):
    """Train the norms' weights alone, with a factor on their decay."""

    name: ClassVar[str] = "norms-only"
    version: ClassVar[int] = 3
    trains: ClassVar[Trains] = Trains.PART

    factor: float = 1.0

    def modify(self, loaded: Any, batch: Any, recipe: Any) -> Any:
        for name, parameter in loaded.model.named_parameters():
            parameter.requires_grad_("norm" in name)
        return loaded.model

    def attach(self, optimizer: Any, model: Any, folder: Any) -> None:
        for group in optimizer.param_groups:
            group["weight_decay"] *= self.factor


class NormsAttacker(ThreatModel):
    name: ClassVar[str] = "T9"
    title: ClassVar[str] = "training the norms alone"
    reads: ClassVar[tuple[str, ...]] = ("T0",)

    def cells(self, study: Study, findings: Findings) -> Plan:
        trials = trying(findings.working[:1], NormsOnly(factor=2.0))
        yield [locked_cell(study, findings, trial.attack(study)) for trial in trials]


THREAT = NormsAttacker()


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """What installing a package with these two would do."""
    points = [
        importlib.metadata.EntryPoint("norms-only", "attacks.toys:NormsOnly", "specdef.interventions"),
        importlib.metadata.EntryPoint("T9", "attacks.toys:THREAT", "specdef.threats"),
    ]
    real = importlib.metadata.entry_points

    def entry_points(**selected: Any) -> Any:
        ours = [point for point in points if point.group == selected.get("group")]
        return [*real(**selected), *ours] if ours else real(**selected)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
