"""Reports in the forms of papers: the same figures, nothing else, and only where they were asked for."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import result

from specdef.attacks.base import Attack
from specdef.certify.cell import Cell, Subject
from specdef.certify.cell_result import FinishedCell
from specdef.certify.store import Store, stored_cells
from specdef.errors import SpecdefError
from specdef.report.exports import write_reports
from specdef.report.latex import escape, latex_table
from specdef.report.run_table import COLUMNS, runs_csv
from specdef.report.runs_page import write_runs
from specdef.tasks.base import TaskSpec
from specdef.training.recipe import Recipe

OWN = TaskSpec("own", "data/train.jsonl", eval="data/eval.jsonl", scorer="exact")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store(tmp_path / "results")
    for seed in (0, 1):
        for kind, lr in (("broken 20", 1e-5), ("collapse 0.5", 1e-3)):
            cell = Cell(Subject("/models/a_b", "0" * 16), OWN, "t", None, "x", Attack(Recipe(lr=lr, seed=seed)))
            found = result(kind, target=0.6, seed=seed)
            store.write(cell, FinishedCell(found.result, replace(found.measured, target=0.6)))
    return store.folder


def test_a_cell_keeps_names_data_and_target(folder: Path) -> None:
    for cell in stored_cells(folder):
        measured = cell.measured
        assert (measured.subject_name, measured.train, measured.eval) == ("a_b", OWN.path, OWN.eval)
        assert (measured.scorer, measured.target, measured.text) == ("exact", 0.6, None)


def test_csv_holds_every_run_as_it_was_measured(folder: Path) -> None:
    cells = stored_cells(folder)
    rows = list(csv.DictReader(io.StringIO(runs_csv(cells))))
    assert len(rows) == 4
    assert tuple(rows[0]) == COLUMNS
    for row, cell in zip(rows, cells, strict=True):
        assert float(row["lr"]) == cell.attack.recipe.lr
        assert row["step"] == ("" if cell.result.step is None else str(cell.result.step))
        assert float(row["score at the end"]) == cell.result.evaluations[-1].score
        assert (row["train file"], row["eval file"]) == (OWN.path, OWN.eval)
        assert row["cell"] == cell.key


def test_formats_are_written_where_they_are_asked_for(folder: Path) -> None:
    assert {path.name for path in write_reports(folder)} == {"runs.png", "index.html"}
    asked = {path.name for path in write_reports(folder, ["csv", "tex", "svg", "pdf"])}
    assert asked == {"runs.png", "index.html", "runs.csv", "runs.tex", "runs.svg", "runs.pdf"}
    assert (folder / "runs.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in (folder / "runs.svg").read_text()


def test_an_unknown_format_is_refused_before_anything_is_written(folder: Path) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(SpecdefError, match="`formats` must be any of csv, tex, svg, pdf; got 'docx'"):
        write_reports(folder, ["csv", "docx"])
    assert sorted(folder.iterdir()) == before


def test_the_page_leads_from_every_outcome_to_its_file(folder: Path) -> None:
    write_runs(folder)
    page = (folder / "index.html").read_text()
    for cell in stored_cells(folder):
        assert f'<a href="cells/{cell.key}.json">' in page
    assert "data/train.jsonl" in page
    assert "Target: 0.6" in page


def test_no_form_says_of_an_undefended_model_that_it_held(folder: Path) -> None:
    rows = csv.DictReader(io.StringIO(runs_csv(stored_cells(folder))))
    assert {row["outcome"] for row in rows} == {"broken", "target not reached"}
    write_runs(folder)
    page = (folder / "index.html").read_text()
    assert page.count("target not reached") == 2
    assert 'class="held"' not in page
    assert "held by" not in page


def test_latex_sets_what_is_written() -> None:
    assert escape(r"a\b & 50% of v_proj {x}") == r"a\textbackslash{}b \& 50\% of v\_proj \{x\}"
    assert escape("`run --out x` — y") == r"\textquoteright{}run -{}-out x\textquoteright{} \textemdash{} y"
    table = latex_table(("defence", "lr 1e-4"), [("exact 2^20", "20 ± 5 (0.64)‡")], "Steps & scores")
    assert r"exact 2\textasciicircum{}20 & 20 $\pm$ 5 (0.64)\textdaggerdbl{} \\" in table
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert table.count(rule) == 1
    assert table.count(r"\\") == 2
    assert r"\caption{Steps \& scores}" in table
