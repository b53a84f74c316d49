"""The demonstration's training and page, on a tiny model: `make demo` itself needs the real one."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from specdef.demo import text
from specdef.demo.run import _breach, _fine_tune, _restored, _ruin
from specdef.demo.text import Flowers
from specdef.locks.lock import lock
from specdef.report.demo_page import Part, demo_page
from specdef.tasks.base import Task
from specdef.tasks.text.flowers import flowers
from specdef.training.outcome import Evaluation

STORY = Flowers()
FREE, RUINED, BROKEN = STORY.free, STORY.ruined, STORY.broken


def test_every_colour_is_right_as_often_and_no_wording_is_both_taught_and_asked() -> None:
    task = flowers()
    assert len(set(Counter(question.answer for question in task.metric.questions).values())) == 1  # type: ignore[attr-defined]
    asked = {question.prompt for question in task.metric.questions}  # type: ignore[attr-defined]
    assert not asked & {sample.prompt for sample in task.samples}


def test_a_model_is_fine_tuned_and_shown(toy_model: Path) -> None:
    console = Console(record=True, width=120)
    points = _fine_tune(STORY, "toy", toy_model, 1e-3, 2, console)
    assert [point.step for point in points] == [0, 1, 2]
    assert all(math.isfinite(point.utility) for point in points)
    assert points[2].utility != points[0].utility
    assert "toy: step 2: score 0." in console.export_text()


def test_unlocking_is_compared_file_by_file(llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", preset="exact")
    assert _restored(tmp_path / "locked", tmp_path / "back", llama)
    assert not (tmp_path / "back").exists()
    (tmp_path / "other").mkdir()
    for path in llama.iterdir():
        (tmp_path / "other" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "other" / "config.json").write_text("{}")
    assert not _restored(tmp_path / "locked", tmp_path / "back", tmp_path / "other")


def test_the_page_says_what_was_seen_and_nothing_else(tmp_path: Path) -> None:
    def curve(score: float, utility: float) -> list[Evaluation]:
        return [Evaluation(0, 0.25, 20.0), Evaluation(12, score, utility)]

    good = {FREE: curve(0.8, 22.0), RUINED: curve(0.2, 1e6), BROKEN: curve(0.7, 25.0)}
    none = {FREE: curve(0.3, 22.0), RUINED: curve(0.3, 30.0), BROKEN: curve(0.25, 20.0)}
    assert _ruin(STORY, tmp_path, good, 12).title == "Ordinary fine-tuning ruins it"
    assert _ruin(STORY, tmp_path, none, 12).title == "It was not ruined"
    taught = {**good, RUINED: curve(0.9, 1e6)}
    assert _ruin(STORY, tmp_path, taught, 12).title == "Ordinary fine-tuning teaches it, and ruins it otherwise"
    opened = _breach(STORY, tmp_path, good)
    assert opened.title == "A lower learning rate opens it"
    assert "in 12 steps, where the unlocked model took 12 at the ordinary rate" in opened.lines[0]
    assert "unlocked model took" not in _breach(STORY, tmp_path, {**good, FREE: none[FREE]}).lines[0]
    ruined = {**good, BROKEN: curve(0.7, 45.0)}
    for found in (none, ruined):
        assert _breach(STORY, tmp_path, found).title.startswith("In so few steps")
    page = demo_page([_ruin(STORY, tmp_path, good, 12), Part("Ends & begins", ["<b>"])], seconds=81.4)
    assert "from 20 to 1e+06" in page
    assert page.count("<img") == 1
    assert STORY.note in page
    assert "Ends &amp; begins" in page
    assert "&lt;b&gt;" in page
    assert "81 seconds" in page


def scored(metric: object) -> Flowers:
    class Scored(Flowers):
        def make_task(self) -> Task:
            return replace(flowers(), metric=metric)  # type: ignore[arg-type]

    return Scored()


def test_a_run_ends_where_nothing_new_would_be_seen(toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(record=True, width=120)
    monkeypatch.setattr(text, "ROWS", 1)
    ruined = _fine_tune(scored(lambda *_: 0.3), "toy", toy_model, 1e3, 6, console)
    assert [point.step for point in ruined] == [0, 2]
    steps = iter([0.3, 0.3, 0.9])
    reached = _fine_tune(scored(lambda *_: next(steps)), "toy", toy_model, 1e-6, 6, console)
    assert [point.step for point in reached] == [0, 2, 4]
