"""Finished cells: both versions of their files, every committed one, and what does not fit refused by its place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specdef.certify.cell_result import CellResult, Measured, RewriteFacts, crashed, refused
from specdef.certify.environment import Environment
from specdef.certify.result import StoredCell, cell_from_wire, cell_to_wire
from specdef.core.schema import SchemaError
from specdef.training.outcome import Evaluation, Outcome, StopReason

COMMITTED = Path(__file__).parents[2] / "experiments" / "results" / "certificates" / "cells"
PATHS = sorted(COMMITTED.glob("*.json"))


def test_every_committed_cell_loads_and_says_what_its_file_says() -> None:
    assert len(PATHS) == 81
    for path in PATHS:
        data = json.loads(path.read_text())
        cell = cell_from_wire(data)
        said, found = data["result"], cell.result
        assert cell.key == path.stem
        assert cell.config == data["config"]
        assert cell.attack.recipe.lr == data["config"]["attack"]["recipe"]["lr"]
        assert found.outcome.value == said["outcome"]
        assert (found.step, found.diverged_at, found.recovered) == (
            said["step"],
            said["diverged_at"],
            said["recovered"],
        )
        assert (found.steps, found.trained_parameters, found.note) == (
            said["steps"],
            said["trained_parameters"],
            said["note"],
        )
        points = [(p.step, p.score, p.utility if math.isfinite(p.utility) else None, p.loss) for p in found.evaluations]
        assert points == [(p["step"], p["score"], p["perplexity"], p["loss"]) for p in said["evaluations"]]
        assert [fact.kind for fact in found.rewrites] == ([said["rewrite"]["kind"]] if "rewrite" in said else [])
        assert cell.measured.train_seconds == data["measured"]["train_seconds"]
        assert cell.measured.rewrite_seconds == data["measured"].get("rewrite_seconds")
        if found.steps:
            assert cell.measured.environment is not None
            assert cell.measured.environment.hardware == data["measured"]["hardware"]


def test_every_committed_cell_survives_being_written_in_the_version_of_today() -> None:
    for path in PATHS:
        cell = cell_from_wire(json.loads(path.read_text()))
        written = json.loads(json.dumps(cell_to_wire(cell), allow_nan=False))
        assert written["schema"] == 2
        assert "perplexity" not in json.dumps(written["result"])
        assert cell_from_wire(written) == cell


WHOLE = StoredCell(
    "0" * 16,
    {"attack": {"recipe": {}, "adapter": None}},
    CellResult(
        Outcome.COLLAPSE,
        best=Evaluation(0, 0.25, 10.0),
        diverged_at=10,
        reason=StopReason.DEAD,
        steps=10,
        trained_parameters=7,
        evaluations=(Evaluation(0, 0.25, 10.0), Evaluation(10, 0.0, math.nan, math.inf)),
        rewrites=(RewriteFacts("merge", 2, -8, "two layers", "the config"),),
    ),
    Measured(1.5, 1.0, 100, Environment("a machine", "3.11", {"torch": "2"}, None), 0.25),
)


def test_every_field_survives_and_numbers_that_are_not_finite_are_null() -> None:
    written = cell_to_wire(WHOLE)
    null = dict.fromkeys(("utility", "loss", "by_group"))
    assert written["result"]["evaluations"][1] == {"step": 10, "score": 0.0, **null}
    assert cell_from_wire(json.loads(json.dumps(written, allow_nan=False))) == WHOLE
    assert WHOLE.result.evaluations[1].utility == math.inf


@pytest.mark.parametrize(("made", "outcome"), [(crashed, Outcome.CRASHED), (refused, Outcome.INVALID)])
def test_what_was_never_measured_survives_and_counts_for_nothing(made: Callable[[str], Any], outcome: Outcome) -> None:
    finished = made("why")
    cell = StoredCell("0" * 16, WHOLE.config, finished.result, finished.measured)
    assert cell_from_wire(cell_to_wire(cell)) == cell
    assert (cell.result.outcome, cell.result.note, cell.result.counts) == (outcome, "why", False)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda d: d.update(schema=3), r"got 3 - at `\$.schema`"),
        (lambda d: d.pop("result"), "missing required field `result`"),
        (lambda d: d["config"].pop("attack"), r"`attack` - at `\$.config`"),
        (lambda d: d["result"].update(outcome="won"), r"`\$.result.outcome`"),
        (lambda d: d["result"].update(steps="10"), r"`\$.result.steps`"),
        (lambda d: d["result"]["evaluations"][1].update(score=None), r"`\$.result.evaluations\[1\].score`"),
        (lambda d: d["result"]["evaluations"][0].pop("utility"), r"`utility` - at `\$.result.evaluations\[0\]`"),
        (lambda d: d["result"].update(best=None), "the best of them in a run that counts"),
        (lambda d: d["result"].update(evaluations=[]), "evaluations and the best of them in a run that counts"),
        (lambda d: d["result"].update(outcome="broken"), r"got `null` - at `\$.result.step`"),
        (lambda d: d["measured"].update(train_seconds=[1]), r"`\$.measured.train_seconds`"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_place(change: Callable[[dict[str, Any]], object], place: str) -> None:
    data = json.loads(json.dumps(cell_to_wire(WHOLE)))
    change(data)
    with pytest.raises(SchemaError, match=place):
        cell_from_wire(data)


def test_utility_of_version_1_is_called_perplexity() -> None:
    data = json.loads(PATHS[0].read_text())
    point = data["result"]["evaluations"][0]
    point["utility"] = point.pop("perplexity")
    with pytest.raises(SchemaError, match=r"`perplexity` - at `\$.result.evaluations\[0\]`"):
        cell_from_wire(data)
