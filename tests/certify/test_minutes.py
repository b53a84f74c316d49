"""A certificate that must be done in so many minutes: what is judged is judged in full, and the rest is named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import synthetic

import specdef
from specdef.certify import timed_cells as file
from specdef.certify.cell import Cell
from specdef.certify.cell_result import FinishedCell
from specdef.certify.certificate import Certificate
from specdef.certify.certify_study import certify_study
from specdef.certify.store import Store
from specdef.errors import SpecdefError

THREATS = ("T0", "T1", "T2")


class Clock:
    """Time that passes while cells run, a minute each; looking at it takes a microsecond."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1e-6
        return self.now

    def run(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, FinishedCell]]:
        for found in synthetic.Pretended(synthetic.holds).run(cells):
            self.now += 60
            yield found


@pytest.fixture
def certify(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(folder: Path, minutes: float | None) -> tuple[Certificate, float]:
        clock = Clock()
        monkeypatch.setattr(file, "time", clock)
        study = synthetic.study(multiplier=2.0**20)
        certificate = certify_study(study, Store(folder), clock, threats=THREATS, minutes=minutes)
        return certificate, round(clock.now / 60, 3)

    return run


def test_what_is_judged_is_what_a_whole_run_judges(certify: Any, tmp_path: Path) -> None:
    whole, took = certify(tmp_path / "whole", None)
    assert list(whole.threat_models) == list(THREATS)
    seen = set()
    for minutes in range(12, int(took) + 2, 4):
        part, spent = certify(tmp_path / f"{minutes}", minutes)
        assert spent <= took
        judged = list(part.threat_models)
        assert judged == list(THREATS)[: len(judged)]
        assert part.threat_models == {name: whole.threat_models[name] for name in judged}
        assert {row.cell for row in part.cells} <= {row.cell for row in whole.cells}
        told = [text for text in part.not_tried if "not done after" in text]
        assert told == [
            f"threat model {name}: not done after {minutes} minutes; the same command goes on"
            for name in THREATS
            if name not in judged
        ]
        assert not any(text == f"threat model {name}" for name in THREATS for text in part.not_tried)
        seen.add(len(judged))
    assert seen == {1, 2, 3}, "cut in each place"


def test_cells_of_a_search_that_was_cut_are_kept_and_go_unjudged(certify: Any, tmp_path: Path) -> None:
    whole, took = certify(tmp_path / "whole", None)
    part, spent = certify(tmp_path / "part", took / 2)
    finished = {path.stem for path in (tmp_path / "part" / "cells").iterdir()}
    assert {row.cell for row in part.cells} < finished
    again, more = certify(tmp_path / "part", None)
    assert spent + more == took, "no cell ran twice"
    assert replace(again, seconds=0.0) == replace(whole, seconds=0.0)


def test_minutes_that_are_over_do_not_matter_where_every_cell_is_there(certify: Any, tmp_path: Path) -> None:
    whole, _ = certify(tmp_path, None)
    again, spent = certify(tmp_path, 1e-9)
    assert (spent, again.threat_models, again.not_tried) == (0, whole.threat_models, whole.not_tried)


def test_too_few_for_a_verdict_is_said_and_writes_no_certificate(certify: Any, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match=r"`minutes` must be enough for a threat model; after 2 none is done"):
        certify(tmp_path, 2)
    assert not (tmp_path / "certificate.json").exists()
    assert list((tmp_path / "cells").iterdir())


@pytest.mark.parametrize("minutes", [0, -1.0, float("nan")])
def test_minutes_are_above_0(minutes: float, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match="`minutes` must be a number above 0"):
        specdef.certify_model("model", tmp_path / "out", original="model", minutes=minutes)
    assert not (tmp_path / "out").exists()
