"""The experiments' study files are understood, at both scales, and make the cells they always made."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from experiments import tables, utility
from specdef.certify import study
from specdef.certify.cell import Subject
from specdef.certify.resources import Resources
from specdef.certify.study import make_study
from specdef.certify.study_faults import StudyError
from specdef.certify.study_file import read_study
from specdef.certify.study_plan import StudyPlan, plan_study
from specdef.certify.study_run import Defended, Field, study_cells
from specdef.models.base import MODEL_KINDS

STUDIES = sorted(tables.STUDIES.glob("*.yaml"))
KEYS: dict[str, list[str]] = json.loads((Path(__file__).parent / "cell_keys.json").read_text())
"""Study -> keys of its cells in order, before study files; models stand for their names, the reference is 2.5."""


def plan(path: Path) -> StudyPlan:
    return plan_study(read_study(path))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_is_understood(path: Path) -> None:
    read = read_study(path)
    assert path.read_text().startswith("# yaml-language-server: $schema=../../docs/study.schema.json\n")
    # The files of the full scale are the user's; everything before them must be in order.
    theirs = any(":" in str(task) and not Path(str(task).partition(":")[2]).is_file() for task in read.tasks)
    with pytest.raises(StudyError, match=r"readable file|model folder|cannot be read") if theirs else nullcontext():
        made = plan_study(read)
        assert made.defences[0].label == "none"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_full_scale_differs_in_scale_alone(path: Path) -> None:
    if path.stem.endswith("-full"):
        small = read_study(path.with_name(path.name.replace("-full", "")))
        assert read_study(path).rows == small.rows
    else:
        assert path.with_name(f"{path.stem}-full.yaml") in STUDIES


@pytest.mark.parametrize("path", [path for path in STUDIES if path.stem.startswith(("table4", "table22"))])
def test_rates_below_the_ordinary_window_are_tried(path: Path) -> None:
    rates = [attack.lr for attack in read_study(path).attacks]  # type: ignore[attr-defined]
    assert min(rates) <= max(rates) / 1e3


@pytest.mark.parametrize("name", KEYS)
def test_finished_cells_are_used_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of a study's cells are those its JSON configuration gave."""
    made = plan(tables.STUDIES / f"{name}.yaml")
    monkeypatch.setattr(study, "subject_of", lambda folder, **_: Subject(str(folder), str(folder)))
    monkeypatch.setattr(study, "kind_of", lambda folder, **_: MODEL_KINDS.get("causal-lm"))
    monkeypatch.setattr(study, "load_config", lambda folder: {})
    undefended = make_study(
        Path("model"),
        Path("model"),
        made.tasks[0].spec,
        utility="perplexity",
        recipe=made.recipe,
        resources=Resources(1, 1, "cpu"),
    )
    defended = [
        Defended(defence, Path(), Subject("", f"lock {number}" if defence.changes else "model"))
        for number, defence in enumerate(made.defences)
    ]
    field = Field(made.models[0], made.tasks[0], undefended, 2.5, "perplexity", tuple(defended))
    cells = [cell for one in defended for seeds in study_cells(made, field, one) for cell in seeds]
    assert [cell.key for cell in cells] == KEYS[name]


def test_results_land_where_they_always_did(toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "results").mkdir()
    text = "specdef_study: 1\ntitle: Toy\nmodels: [MODEL]\ntasks: [facts]\nrecipe: {steps: 2, eval_every: 2}\n"
    locks = "defences: [none, {preset: exact, multiplier: 2^4}]\n"
    path = tmp_path / "studies" / "toy.yaml"
    for module in (tables, utility):
        monkeypatch.setattr(module, "HERE", tmp_path)
        monkeypatch.setattr(module, "WORK", tmp_path / "work")
    monkeypatch.setattr(tables, "STUDIES", tmp_path / "studies")
    monkeypatch.setattr(tables, "SHARED", tmp_path / "work" / "cells-store")
    path.write_text((text + locks + "attacks: [{lr: 1e-4}]\n").replace("MODEL", str(toy_model)))
    assert tables.run("toy", resources=Resources(2, 1, "cpu")) == tmp_path / "results" / "toy.md"
    written = {file.name: file for file in (tmp_path / "results").iterdir()}
    assert set(written) == {"toy.json", "toy.md", "toy.png"}
    content: dict[str, Any] = json.loads(written["toy.json"].read_text())
    assert content["command"] == "make experiment NAME=toy"
    assert [row["lock"] for row in content["rows"]] == ["none", "exact 2^4"]
    assert [entry["attack"] for row in content["rows"] for entry in row["entries"]] == ["adamw, lr 1e-4"] * 2

    path.write_text((text + locks).replace("MODEL", str(toy_model)))
    lines = tables.run("toy").read_text().splitlines()
    assert lines[4].startswith("| none |")
    assert lines[5].startswith("| exact 2^4 |")
    assert "| +0 |" in lines[5]


def test_every_experiment_can_be_run_by_name() -> None:
    """Importing them is what `make experiment` does first; a name that went away in the library is met here."""
    from experiments.__main__ import IN_CODE

    assert {"calibration", "crosscheck", "toy", "table9"} <= set(IN_CODE)
