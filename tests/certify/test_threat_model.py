"""Threat models by name: which cells a verdict reads, and what runs before what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import synthetic

from specdef.certify import certify_study as certify_file
from specdef.certify.certify_study import certify_study, check_threats
from specdef.certify.environment import Environment, environment
from specdef.certify.findings import Findings
from specdef.certify.resources import Resources
from specdef.certify.store import Store
from specdef.certify.threat_model import THREATS, Plan, ThreatModel, in_order, named_threats, ordinary_threats
from specdef.certify.verdict_kinds import Broken
from specdef.errors import SpecdefError


def test_whoever_searches_also_tries_the_ordinary() -> None:
    parts = {name: THREATS.get(name).parts for name in ordinary_threats()}
    assert parts == {"T0": ("T0",), "T1": ("T0", "T1"), "T2": ("T2",), "T3": ("T3",), "T4": ("T0", "T4")}
    assert named_threats() == (*parts, "T5", "T6"), "those on request have names too; the user's own attacks need none"
    assert {name: THREATS.get(name).parts for name in ("T5", "T6")} == {"T5": ("T0", "T5"), "T6": ("T0", "T6")}
    assert all(threat.title for threat in THREATS)


@pytest.mark.parametrize(
    ("names", "order"),
    [(["T4"], ["T0", "T4"]), (["T3", "T1"], ["T0", "T1", "T3"]), (["T2"], ["T2"]), (["T1", "T0"], ["T0", "T1"])],
)
def test_what_a_threat_model_reads_runs_before_it(names: list[str], order: list[str]) -> None:
    assert [threat.name for threat in in_order(names)] == order


def test_a_threat_model_may_read_one_that_reads_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Whole(ThreatModel):
        name = "A0"
        title = "everything"
        reads = ("T1",)

        def cells(self, study: object, findings: Findings) -> Plan:
            yield []

    monkeypatch.setitem(THREATS._loaded, "A0", Whole())
    assert [threat.name for threat in in_order(["A0", "T0"])] == ["T0", "T1", "A0"]


def test_unknown_names_are_refused() -> None:
    for names, got in ((["T0", "T8"], "T8"), (["YOURS"], "YOURS"), ([], "none")):
        with pytest.raises(SpecdefError, match=f"`threats` must be any of T0, T1, T2, T3, T4, T5, T6; got {got}"):
            check_threats(names)


@pytest.mark.parametrize("threat", ["T1", "T4", "T6"])
def test_a_model_that_ordinary_training_breaks_is_searched_no_further(
    threat: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    certificate = synthetic.certify(tmp_path_factory.mktemp("open"), synthetic.unlocked, ("T0", threat))
    assert certificate.verdicts == {"T0": Broken(), threat: Broken()}
    assert not [row for row in certificate.cells if row.threat_model == threat]
    (reason,) = certificate.threat_models[threat].not_tried
    assert "break" in reason


def test_a_certificate_names_the_device_its_cells_run_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def record(device: str) -> Environment:
        asked.append(device)
        return environment("cpu")

    monkeypatch.setattr(certify_file, "environment", record)
    for device in ("cuda", None):
        study = replace(synthetic.study(), resources=Resources(device=device))
        certify_study(study, Store(tmp_path / str(device)), synthetic.Pretended(synthetic.holds), threats=("T0",))
    assert asked == ["cuda", "cpu"]
