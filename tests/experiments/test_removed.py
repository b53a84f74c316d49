"""Defended copies of hours are made in parts: a row that one machine committed, the next does not make again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments import removed
from specdef.certify.environment import environment
from specdef.certify.store import write_json
from specdef.certify.study_models import DefencePlan, ModelPlan
from specdef.core.strict_json import read_json
from specdef.defences.card import RECORD
from specdef.models.kinds.causal_lm import KIND


class Machine:
    """Pretends to make so many copies, then goes away."""

    def __init__(self, work: Path, copies: int) -> None:
        self.work, self.left, self.made = work, copies, list[tuple[str | None, int]]()

    def prepared(self, source: Path, model: ModelPlan, place: str) -> Path:
        return self._folder("taught", 0.8)

    def defended(self, source: Path, plan: DefencePlan, place: str) -> Path:
        if len(self.made) == self.left:
            raise KeyboardInterrupt
        self.made.append((plan.method, plan.seed))
        return self._folder(f"{plan.method}-{plan.seed}", 0.3)

    def _folder(self, name: str, score: float) -> Path:
        folder = self.work / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        record = {
            "scores": {"biographies": {"before": 0.8, "after": score}},
            "utility": {"before": 10.0, "after": 12.0},
            "steps": {"defend": 5},
            "ended": "all steps done",
        }
        write_json(folder / RECORD, record)
        return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(removed, "HERE", tmp_path)
    monkeypatch.setattr(removed, "find_model", Path)
    monkeypatch.setattr(removed, "kind_of", lambda folder: KIND)

    def go(name: str, copies: int) -> Machine:
        machine = Machine(tmp_path / name, copies)
        monkeypatch.setattr(removed, "WORK", machine.work)
        monkeypatch.setattr(removed, "Copies", lambda *given: machine)
        try:
            removed.run("removed")
        except KeyboardInterrupt:
            assert len(machine.made) == copies
        return machine

    return go


def rows(folder: Path) -> list[dict[str, Any]]:
    page = read_json(folder / "results" / "removed.json")
    assert isinstance(page, dict)
    return list(page["rows"])


def test_the_second_machine_makes_the_copies_that_are_left(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("alone", 10**6).made
    (tmp_path / "results" / "removed.json").unlink()
    monkeypatch.setenv("EXPERIMENT_GO_ON", "1")
    first = run("first", 4)
    other = replace(environment("cpu"), hardware="another machine")
    monkeypatch.setattr(removed, "environment", lambda device: other)
    second = run("second", 10**6)
    assert first.made + second.made == whole
    assert [row["hardware"] for row in rows(tmp_path)][:4] != ["another machine"] * 4
    assert {row["hardware"] for row in rows(tmp_path)[4:]} == {"another machine"}
    assert "another machine" in (tmp_path / "results" / "removed.md").read_text()


def test_who_makes_the_page_again_makes_all_of_it(run: Any) -> None:
    assert run("one", 10**6).made == run("other", 10**6).made != []


def test_a_copy_that_two_processes_made_says_nothing_of_its_seconds(run: Any, tmp_path: Path) -> None:
    run("one", 4)
    run("one", 10**6)
    assert [row["seconds"] is None for row in rows(tmp_path)][:6] == [False] * 4 + [True, False]
