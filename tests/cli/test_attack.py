"""`specdef attack`: one run, stored once, said in a sentence, drawn on request; progress that can be read in a log."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from specdef.certify import reference
from specdef.certify.cell import Cell
from specdef.certify.run_cell import reference_utility
from specdef.certify.store import stored_cells
from specdef.cli import heartbeat, progress
from specdef.cli.main import app
from specdef.cli.progress import pace, steps_bar
from specdef.report.run_table import outcome_words
from specdef.training.outcome import Evaluation


def run(*arguments: str | Path) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def locked(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("attacked") / "locked"
    run("lock", toy_model, out, "--preset", "exact", "--multiplier", "2^30")
    return out


def test_one_attack_is_stored_drawn_and_not_repeated(toy_model: Path, locked: Path, tmp_path: Path) -> None:
    out, picture = tmp_path / "runs", tmp_path / "run.png"
    arguments = ("--lr", "1e-2", "--steps", "2", "--eval-every", "1", "--threads", "1", "--out", out)
    first = run("attack", locked, "--original", toy_model, "--plot", picture, *arguments)
    assert "at the end, score" in first.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = [line for line in first.stderr.splitlines() if line.startswith("step ")]
    assert [line.partition(":")[0] for line in lines] == ["step 0/2", "step 1/2", "step 2/2"]
    assert "loss" in lines[1]
    assert "steps/s, " in lines[1]
    assert lines[2].endswith(" steps/s")
    files = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    again = run("attack", locked, "--original", toy_model, "--json", *arguments)
    assert {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()} == files
    stored = json.loads(again.stdout)
    assert stored["cell"] == next(iter(files)).stem
    assert stored["measured"]["subject_name"] == "locked"
    run("attack", toy_model, "--lora", "r=2,targets=q_proj", "--optimizer", "sgd", *arguments)
    assert len(list((out / "cells").iterdir())) == 2


def test_an_attack_needs_no_matplotlib(toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are an extra; a run of hours must not end in a refusal."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "runs"
    done = run("attack", toy_model, "--steps", "1", "--warmup", "0", "--threads", "1", "--out", out)
    assert "No page: it needs `pip install specdef[plot]`." in done.stdout
    assert len(list((out / "cells").iterdir())) == 1
    assert not (out / "index.html").exists()


def test_a_second_attack_in_a_folder_does_not_measure_the_original_again(
    toy_model: Path, locked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("--original", toy_model, "--steps", "2", "--threads", "1", "--json")
    measured: list[str] = []

    def measure(cell: Cell) -> float:
        measured.append(cell.subject.digest)
        return reference_utility(cell)

    monkeypatch.setattr(reference, "reference_utility", measure)
    first = json.loads(run("attack", locked, *common, "--out", tmp_path / "one", "--lr", "1e-2").stdout)
    second = json.loads(run("attack", locked, *common, "--out", tmp_path / "one", "--lr", "1e-3").stdout)
    assert len(measured) == 1
    assert second["cell"] != first["cell"]
    elsewhere = json.loads(run("attack", locked, *common, "--out", tmp_path / "two", "--lr", "1e-3").stdout)
    assert len(measured) == 2
    assert (elsewhere["cell"], elsewhere["config"]) == (second["cell"], second["config"])
    other = ("--steps", "2", "--threads", "1", "--json", "--out", tmp_path / "one")
    run("attack", toy_model, "--original", locked, *other)
    assert len(measured) == len({*measured}) + 1 == 3


def test_a_rewritten_model_alone_never_holds(toy_model: Path, locked: Path, tmp_path: Path) -> None:
    """What rewriting does is judged against the model itself, which says nothing of a defence."""
    options = ("--rewrite", "sharpen:num_matrices=1", "--steps", "2", "--threads", "1")
    alone = run("attack", toy_model, "--out", tmp_path / "alone", *options)
    assert "Target not reached after 2 steps" in alone.stdout
    run("attack", locked, "--original", toy_model, "--out", tmp_path / "both", *options)
    (found,) = stored_cells(tmp_path / "both")
    assert found.measured.compared
    assert outcome_words(found).startswith("held by")


def test_early_stop_and_smallest_gradients_have_the_names_of_the_field(toy_model: Path, tmp_path: Path) -> None:
    options = ("--early-stop", "--train-smallest-gradients", "0.5", "--steps", "2", "--threads", "1")
    found = json.loads(run("attack", toy_model, "--out", tmp_path / "runs", *options, "--json").stdout)
    assert (found["config"]["attack"]["stop"], found["config"]["attack"]["freeze"]) == ("paper", "gradients:0.5")


@pytest.mark.parametrize(
    ("done", "seconds", "said"),
    [
        (0, 0.0, ""),
        (1, 2.0, "0.5 steps/s, 18 s left"),
        (5, 5000.0, "0.001 steps/s, 84 min left"),
        (10, 4.0, "2.5 steps/s"),
    ],
)
def test_pace(done: int, seconds: float, said: str) -> None:
    assert pace(done, 10, seconds) == said


def test_a_bar_on_a_terminal_moves_with_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, it stood still between evaluations: an attack of 10 minutes showed nothing for minutes."""
    written = StringIO()
    console = Console(file=written, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "err_console", console)
    monkeypatch.setattr(heartbeat, "err_console", console)
    with steps_bar(10, quiet=False) as (on_evaluation, on_step):
        on_evaluation(Evaluation(0, 0.25, 43.0))
        on_step(1, 2.5)
    assert "step 0/10: score 0.250, utility 43" in written.getvalue()
    assert "step 1/10, loss 2.500" in written.getvalue()
    assert "steps/s, " in written.getvalue()


def test_steps_write_no_lines_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet, lines in ((False, 2), (True, 0)):
        with steps_bar(10, quiet=quiet) as (on_evaluation, on_step):
            on_evaluation(Evaluation(0, 0.25, 43.0))
            on_step(1, 2.5)
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_recipe_file_starts_an_attack_and_what_is_typed_wins(toy_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "{optimizer: sgd, lr: 0.1, steps: 1, warmup: 0, optimizer_options: {momentum: 0.5}, early_stop: true}"
    )
    arguments = ("attack", toy_model, "--out", tmp_path / "runs", "--recipe", file, "--threads", "1", "--json")
    alone = json.loads(run(*arguments).stdout)["config"]["attack"]
    assert (alone["recipe"]["optimizer"], alone["recipe"]["lr"], alone["recipe"]["steps"]) == ("sgd", 0.1, 1)
    assert alone["stop"] == "paper"
    typed = json.loads(run(*arguments, "--lr", "1e-4", "--lora", "r=2,targets=q_proj").stdout)["config"]["attack"]
    assert (typed["recipe"]["optimizer"], typed["recipe"]["lr"]) == ("sgd", 1e-4), "1e-4 is the default, and typed"
    assert "q_proj" in json.dumps(typed)
    file.write_text("{interventions: [channel-rates]}")
    refused = CliRunner().invoke(app, [*map(str, arguments), "--lora", "r=2"])
    assert "`recipe` must hold no interventions where some are typed" in str(refused.exception)
