"""An intervention and a threat model of another package, each one object, from parsing to the certificate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from attacks import toys

from specdef.attacks.base import parse_intervention
from specdef.certify.api import attack
from specdef.certify.cell import Cell
from specdef.certify.cell_result import FinishedCell
from specdef.certify.certify_study import certify_study
from specdef.certify.run_cell import measure_cell
from specdef.certify.store import Store, stored_cells
from specdef.certify.study import make_study
from specdef.tasks.base import TaskSpec
from specdef.training.recipe import Recipe


class InThisProcess:
    def run(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, FinishedCell]]:
        for cell in cells:
            yield cell, measure_cell(cell)


def test_an_intervention_of_another_package(toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toys.install(monkeypatch)
    how = {"recipe": Recipe(lr=1e-3, steps=2, eval_every=1), "task": "facts", "threads": 1}
    found = attack(toy_model, tmp_path, interventions=["norms-only:factor=1000"], **how)  # type: ignore[arg-type]
    whole = attack(toy_model, tmp_path, **how)  # type: ignore[arg-type]
    assert found.attack.interventions == (toys.NormsOnly(factor=1000.0),)
    assert found.key != whole.key
    assert found.result.evaluations[0] == whole.result.evaluations[0], "the model is the same at step 0"
    assert found.result.trained_parameters == 32 * 5, "two norms a layer, and the last one"
    half = attack(toy_model, tmp_path, interventions=[toys.NormsOnly()], **how)  # type: ignore[arg-type]
    assert half.result.evaluations[-1] != found.result.evaluations[-1], "the optimizer was changed too"
    assert {cell.key for cell in stored_cells(tmp_path)} == {found.key, whole.key, half.key}


def test_a_threat_model_of_another_package(toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toys.install(monkeypatch)
    task, recipe = TaskSpec("facts", target=0.35), Recipe(steps=40)
    study = make_study(toy_model, toy_model, task, recipe=recipe, window=(1e-2, 3e-2), effort="quick")
    certificate = certify_study(study, Store(tmp_path), InThisProcess(), threats=["T9"])
    rows = certificate.cells
    assert list(certificate.verdicts) == ["T9"]
    tried = [row for row in rows if row.threat_model == "T9"]
    assert len(tried) == 1
    assert "norms-only" in tried[0].attack.label
    assert any(row.threat_model == "T0" for row in rows), "what it reads ran before it"
    ordinary = [row.cell for row in rows if row.threat_model == "T0"]
    assert certificate.threat_models["T9"].num_cells == len({*ordinary, tried[0].cell})
    assert "threat model T0" in certificate.not_tried


def test_a_kind_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    toys.install(monkeypatch)
    assert parse_intervention("norms-only") == toys.NormsOnly()
