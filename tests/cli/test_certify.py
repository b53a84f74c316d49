"""From a model to a certificate on the command line: real training on a tiny model, real files, nothing run twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from specdef.cli.main import app

SETTING = ("--task", "facts", "--utility", "perplexity")
RECIPE = (*SETTING, "--target", "0.35", "--steps", "40", "--threads", "1", "--effort", "quick")
THREATS = ("T0", "T1", "T2", "T3")


def run(*arguments: str | Path) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def folders(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Certificates of the unlocked toy under every threat model, and of its fold lock under T0."""
    place = tmp_path_factory.mktemp("certificates")
    locked = place / "locked"
    run("lock", toy_model, locked, "--preset", "exact", "--multiplier", "2^30")
    shared = ("--original", toy_model, "--window", "1e-2,3e-2", "--cells", place / "cells", "--workers", "2", *RECIPE)
    run("certify", toy_model, "--out", place / "unlocked", "--threats", ",".join(THREATS), *shared)
    run("certify", locked, "--out", place / "lock", "--threats", "T0", *shared)
    return {"unlocked": place / "unlocked", "lock": place / "lock", "locked": locked, "cells": place / "cells"}


def read(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "certificate.json").read_text()))


def test_the_unlocked_model_is_broken_under_every_threat_model(folders: dict[str, Path]) -> None:
    found = read(folders["unlocked"])
    assert found["subject"]["method"] == "none"
    for name in THREATS:
        entry = found["threat_models"][name]
        assert entry["verdict"]["kind"] in ("broken", "slowed"), (name, entry)
        assert entry["steps"] <= 40
        assert entry["score"] >= 0.35
        assert entry["utility"] <= 2
        assert entry["seeds"] == 3
    assert len(found["unlocked"]["working_learning_rates"]) == 2


def test_the_lock_is_compared_with_the_same_unlocked_cells(folders: dict[str, Path]) -> None:
    """Shared cells: the second certificate attacked the original no second time, and is complete by itself. What was
    run ahead and not asked for lies among them."""
    unlocked, lock = read(folders["unlocked"]), read(folders["lock"])
    assert lock["subject"]["method"] == "fold"
    assert lock["multiplier"] == 2.0**30
    cells = {row["cell"] for row in unlocked["cells"] + lock["cells"]}
    assert cells <= {path.stem for path in folders["cells"].glob("*.json")}
    assert {row["cell"] for row in lock["cells"]} == {path.stem for path in (folders["lock"] / "cells").iterdir()}
    starts = {
        json.loads(path.read_text())["result"]["evaluations"][0]["utility"]
        for path in (folders["lock"] / "cells").iterdir()
    }
    assert len(starts) == 1, "an exact lock starts where the original starts, to the bit"


def test_the_same_command_again_runs_nothing(toy_model: Path, folders: dict[str, Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in folders["cells"].iterdir()}
    again = ("--window", "1e-2,3e-2", "--cells", folders["cells"], *RECIPE)
    run("certify", folders["locked"], "--original", toy_model, "--out", folders["lock"], "--threats", "T0", *again)
    assert {path: path.stat().st_mtime_ns for path in folders["cells"].iterdir()} == before


def test_results_of_another_grid_are_refused(toy_model: Path, folders: dict[str, Path]) -> None:
    before = read(folders["lock"])
    arguments = ["certify", toy_model, "--original", toy_model, "--out", folders["lock"], "--target", "0.4", *SETTING]
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert "holds another's (effort, locked, task_digest differ)" in str(result.exception)
    assert read(folders["lock"]) == before


def test_a_task_that_is_not_learned_measures_nothing(toy_model: Path, tmp_path: Path) -> None:
    arguments = ["certify", toy_model, "--original", toy_model, "--out", tmp_path / "out", "--steps", "2"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--window", "1e-6,1e-5", "--threads", "1"])
    assert "measures nothing on this model: undefended, it must reach 0.6" in str(result.exception)
    assert not (tmp_path / "out" / "certificate.json").exists()


def test_runs_and_report_show_what_is_stored(folders: dict[str, Path]) -> None:
    listed = json.loads(run("runs", folders["lock"], "--json").stdout)
    assert {cell["cell"] for cell in listed} == {row["cell"] for row in read(folders["lock"])["cells"]}
    pages = [folders["lock"] / name for name in ("certificate.md", "heatmap.png", "trajectories.png", "index.html")]
    before = [path.read_bytes() for path in pages]
    run("report", folders["lock"])
    assert [path.read_bytes() for path in pages] == before
