"""Shares by class: measured of every classifier, kept in files, and shown in words and pages; nobody else has them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pico
import pytest
import torch
from pico_judge import Says
from typer.testing import CliRunner

from specdef import attack
from specdef.certify.result import StoredCell, cell_from_wire, cell_to_wire, point_of
from specdef.cli.main import app
from specdef.core.schema import plain
from specdef.report.classes import MOST, class_shares, class_tables
from specdef.report.runs_page import runs_page
from specdef.tasks.base import TaskSpec, make_task
from specdef.tasks.confusion import SCORERS, label_score
from specdef.tasks.utilities.accuracy import KIND as ACCURACY
from specdef.training.outcome import Evaluation
from specdef.training.recipe import Recipe


@pytest.mark.parametrize("task", [TaskSpec("unlearned-class", path="3"), TaskSpec("images")])
def test_a_removed_class_is_the_one_whose_share_is_gone(task: TaskSpec) -> None:
    metric: Any = make_task(task).metric
    labels = [row.label for row in metric.rows]
    found = metric(Says(labels, lambda label: 7 if label == 3 else label), None)
    assert found.by_class == {str(label): float(label != 3) for label in sorted(set(labels))}
    spoilt = Says(labels, lambda label: label)
    spoilt.forward = lambda pixel_values: SimpleNamespace(logits=torch.full((len(pixel_values), 10), torch.nan))  # type: ignore[method-assign]
    assert metric(spoilt, None).by_class is None


def test_a_text_classifiers_shares_are_those_of_the_rows_of_each_label() -> None:
    for scorer in SCORERS.values():
        found = label_score(scorer.measure, [1, 0, 0, 2, 2, 2], [2, 0, 0, 2, 2, 0], range(6))
        assert found.by_class == {"0": 0.6667, "2": 0.6667}


def test_the_general_datas_mean_over_classes_is_the_utility(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [SimpleNamespace(label=label) for label in (5, 0, 0, 5, 5)]
    data: Any = SimpleNamespace(measured=SimpleNamespace(rows=rows, processor=None))
    monkeypatch.setattr(type(ACCURACY), "predicted", lambda *_: [5, 0, 5, 0, 5])
    assert ACCURACY.measure_by_class(None, data) == (pytest.approx(7 / 12), {"0": 0.5, "5": 0.6667})
    assert ACCURACY.measure(None, data) == pytest.approx(7 / 12)
    monkeypatch.setattr(type(ACCURACY), "predicted", lambda *_: None)
    assert ACCURACY.measure_by_class(None, data)[1] is None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredCell:
    """An attack on a classifier of images."""
    folder = tmp_path_factory.mktemp("classes")
    model = pico.build("vit", folder / "model", image_size=8, patch_size=4)
    return attack(model, folder / "runs", recipe=Recipe(steps=2, eval_every=1), threads=1)


def test_an_attack_measures_them_at_every_evaluation_and_files_keep_them(run: StoredCell) -> None:
    assert [sorted(point.by_class or {}) for point in run.result.evaluations] == [list("0123")] * 3
    for point in run.result.evaluations:
        assert point.by_class is not None
        assert sum(point.by_class.values()) / len(point.by_class) == pytest.approx(point.score, abs=1e-3)
        assert point.utility_by_class is not None
        mean = sum(point.utility_by_class.values()) / len(point.utility_by_class)
        assert mean == pytest.approx(point.utility, abs=1e-3)
    assert cell_from_wire(cell_to_wire(run)).result.evaluations == run.result.evaluations


def test_they_are_said_and_shown(run: StoredCell) -> None:
    task, general = class_shares(run)
    assert (task.of, general.of) == ("the task", "general data")
    assert task.before == run.result.evaluations[0].by_class
    assert task.end == run.result.evaluations[-1].by_class
    assert general.end == run.result.evaluations[-1].utility_by_class
    assert [row[0] for row in task.rows] == list("0123")
    assert class_tables(run).count("<table") == 2
    assert "By class" in runs_page([run], b"")
    short = dataclasses.replace(task, before={"a": 0.5, "b": 1.0}, best=None, end={"a": 0.25, "b": 1.0})
    assert short.rows == [("a", "0.5", "—", "0.25"), ("b", "1", "—", "1")]
    assert short.sentence == "By class of the task, before -> at the end: a: 0.5 -> 0.25, b: 1 -> 1."
    assert (short.changed_most, short.caption) == (short.rows, "Share of each class of the task that got its label")
    labels = [str(label) for label in range(60)]
    shares = {label: 0.01 * int(label) for label in labels}
    large = dataclasses.replace(task, before=dict.fromkeys(labels, 0.0), best=None, end=shares)
    assert [row[0] for row in large.changed_most] == labels[:9:-1]
    assert large.caption.endswith(": the 50 of 60 that changed most")
    assert dataclasses.replace(short, end={"a": 0.25}).rows[1] == ("b", "1", "—", "—"), "a file that was edited"
    many = dataclasses.replace(task, before=dict.fromkeys(map(str, range(MOST + 1)), 0.5))
    assert many.sentence == f"By class of the task: {MOST + 1} classes, see the page."


def test_the_command_says_them(run: StoredCell, tmp_path: Path) -> None:
    model = pico.build("vit", tmp_path / "model", image_size=8, patch_size=4)
    found = CliRunner().invoke(
        app, ["attack", str(model), "--out", str(tmp_path / "runs"), "--steps", "2", "--threads", "1"]
    )
    assert found.exit_code == 0, found.output
    assert "By class of the task, before -> at the end: 0: " in " ".join(found.output.split())


def test_a_language_models_files_are_as_before(run: StoredCell) -> None:
    point = Evaluation(0, 0.5, 10.0, None, (0.5,))
    assert sorted(plain(point_of(point))) == ["by_group", "loss", "score", "step", "utility"]
    bare = tuple(dataclasses.replace(point, by_class=None, utility_by_class=None) for point in run.result.evaluations)
    without = dataclasses.replace(run, result=dataclasses.replace(run.result, evaluations=bare))
    assert class_shares(without) == []
    assert class_tables(without) == ""
    assert "By class" not in runs_page([without], b"")
