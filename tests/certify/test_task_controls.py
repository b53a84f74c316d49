"""What the form of a task alone is worth is measured on the undefended model and stands in every certificate."""

from __future__ import annotations

from pathlib import Path

import synthetic

from specdef.certify.certificate_file import read_cells, read_certificate
from specdef.certify.findings import TASK_CONTROLS
from specdef.report.markdown import markdown
from specdef.report.write import write_report


def test_every_control_is_trained_on_at_the_best_rate_and_counts_for_no_verdict(tmp_path: Path) -> None:
    plain = synthetic.certify(tmp_path / "plain", synthetic.falls_to_search, ("T0", "T1"))
    found = synthetic.certify(tmp_path / "found", synthetic.falls_to_search, ("T0", "T1"), task="biographies")
    assert found.verdicts == plain.verdicts
    assert plain.controls == ()
    assert [control.task for control in found.controls] == [
        "biographies, control shuffled",
        "biographies, control context-free",
    ]
    cells = {cell.key: cell for cell in read_cells(tmp_path / "found", found)}
    for control in found.controls:
        cell = cells[control.cell]
        assert cell.config["model"] == found.original.digest
        assert cell.attack.recipe.lr == min(found.unlocked.working_learning_rates)
        assert cell.config["task_digest"] != found.task.digest
        assert control.score == cell.result.evaluations[-1].score
    rows = [row for row in found.cells if row.threat_model == TASK_CONTROLS]
    assert {row.cell for row in rows} == {control.cell for control in found.controls}
    assert read_certificate(tmp_path / "found") == found
    assert "biographies, control shuffled: score 0.26" in markdown(found, []).replace("\\", "")
    assert write_report(tmp_path / "found")
