"""`specdef runs`: one line a run, the model by its name, and what a run came to in one sentence that hides nothing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import result
from typer.testing import CliRunner

from specdef.attacks.run import Attack
from specdef.certify.cell import Cell, Subject
from specdef.certify.cell_result import FinishedCell
from specdef.certify.result import StoredCell
from specdef.certify.store import Store
from specdef.cli.main import app
from specdef.cli.runs import sentence
from specdef.tasks.base import TaskSpec
from specdef.training.recipe import Recipe

LONG = Recipe(optimizer="adafactor", lr=3e-5, batch_size=32, schedule="cosine", weight_decay=0.5, warmup=0.2)


def cell(recipe: Recipe, path: str = "/models/smol-locked", digest: str = "0123456789abcdef") -> Cell:
    return Cell(Subject(path, digest), TaskSpec("facts"), "t" * 64, None, "x" * 64, Attack(recipe), reference=43.2)


def listed(folder: Path, width: int = 80, *options: str) -> str:
    done = CliRunner().invoke(app, ["runs", str(folder), *options], env={"COLUMNS": str(width)})
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store(tmp_path / "results")
    for seed in (0, 1):
        for kind, lr in (("broken 20", 1e-5), ("collapse 0.5", 1e-3), ("crashed", 1e-4)):
            store.write(cell(replace(LONG, lr=lr, seed=seed)), result(kind, target=0.6, seed=seed))
    return store.folder


def test_a_run_is_one_line_of_at_most_the_terminal(folder: Path) -> None:
    for width in (60, 80, 200):
        lines = listed(folder, width).splitlines()
        assert len([line for line in lines if "adafactor" in line]) == 6
        assert max(map(len, lines)) <= width
        assert len([line for line in lines if "held by collapse" in line]) == 2
    assert all(name in listed(folder, 200) for name in ("cell", "seed", "score", "step", "utility", "seconds"))


def test_the_model_is_shown_by_name(folder: Path) -> None:
    assert "model: smol-locked 01234567" in listed(folder)
    Store(folder).write(cell(Recipe(), "/models/another", "fedcba9876543210"), result("stall 0.3", target=0.6))
    found = listed(folder, 120)
    assert "smol-locked 01234567" in found
    assert "another fedcba98" in found


def test_json_has_everything(folder: Path) -> None:
    cells = json.loads(listed(folder, 80, "--json"))
    assert [stored["measured"]["subject_name"] for stored in cells] == ["smol-locked"] * 6
    assert {stored["result"]["outcome"] for stored in cells} == {"broken", "held by collapse", "crashed"}


def test_a_name_a_terminal_would_obey_is_shown_as_text(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for recipe in (Recipe(), LONG):
        store.write(cell(recipe, "/models/\x1b[31mred[bold]\nnext"), result("stall 0.3", target=0.6))
    found = listed(store.folder)
    assert "\x1b" not in found
    assert r"model: \x1b[31mred[bold]\nnext" in found
    store.write(cell(Recipe(), "/models/" + "long-name" * 20 + "\x1b[2J", "fedc"), result("stall 0.3", target=0.6))
    lines = listed(store.folder).splitlines()
    assert "long-namelong-namelong-n fedc" in lines[-1]
    assert "adamw, lr" in lines[-1]


def stored(kind: str) -> StoredCell:
    return with_result(result(kind, target=0.6))


def with_result(found: FinishedCell) -> StoredCell:
    made = cell(Recipe())
    return StoredCell(made.key, made.identity(), found.result, found.measured)


def test_a_sentence_says_the_end_and_the_best() -> None:
    """Before, a run that ended at perplexity 2e17 was said to have gone from 43.21 to 43.21: the best point's."""
    found = sentence(stored("collapse 0.5"))
    assert "perplexity 43.2 -> 4.32e+06" in found
    assert "the best within the utility budget was score 0.250 at step 0, with perplexity 43.2" in found
    assert "utility was lost at step 10 and not regained" in found


def test_a_sentence_says_the_end_once_where_it_is_the_best() -> None:
    found = sentence(stored("broken 20"))
    assert "at step 20: at the end, score 0.250 -> 0.650 and perplexity 43.2 -> 56.16" in found
    assert "best" not in found


def test_the_undefended_model_never_holds() -> None:
    made = replace(cell(Recipe()), reference=None)
    found = result("collapse 0.5", target=0.6)
    text = sentence(StoredCell(made.key, made.identity(), found.result, found.measured))
    assert text.startswith("Target not reached after ")
    assert "held" not in text.lower()


def test_a_run_that_does_not_count_says_so() -> None:
    assert sentence(stored("crashed")).endswith("This says nothing about the defence.")


def test_utility_that_is_no_number_is_said(tmp_path: Path) -> None:
    found = result("nan 0.5", target=0.6)
    assert math.isinf(found.result.evaluations[-1].utility)
    assert "perplexity 43.2 -> inf;" in sentence(with_result(found))


def test_a_utility_is_called_by_its_own_name() -> None:
    """Before, the configuration's whole entry was printed, braces and all."""
    made = replace(cell(Recipe()), model_kind="text-classifier", utility="accuracy", reference=0.9)
    found = result("broken 20", target=0.6)
    assert " and accuracy 43.2 -> 56.16" in sentence(
        StoredCell(made.key, made.identity(), found.result, found.measured)
    )
