"""Optimizers that a change of variables should not stop are named, with what they came to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from specdef.attacks.base import Attack
from specdef.attacks.wire import attack_to_wire
from specdef.certify.certificate import Certificate
from specdef.certify.certificate_file import read_certificate
from specdef.certify.certified_cell import CertifiedCell
from specdef.certify.findings import CONTROLS, UNCOUNTED, UNLOCKED
from specdef.certify.result import Point
from specdef.report.invariant import INVARIANT, invariant_attackers
from specdef.report.kind import Kind
from specdef.report.markdown import markdown
from specdef.report.page import page
from specdef.report.phrases import mark_title
from specdef.report.trajectories import trajectories
from specdef.training.optimizers import OPTIMIZERS
from specdef.training.outcome import Outcome
from specdef.training.recipe import Recipe


def row(optimizer: str, lr: float, score: float | None, step: int | None = None, threat: str = "T2") -> CertifiedCell:
    best = None if score is None else Point(10, score, 40.0)
    outcome = Outcome.STALL if step is None else Outcome.BROKEN
    given: dict[str, Any] = {"diverged_at": None, "recovered": False, "note": ""}
    wire = attack_to_wire(Attack(Recipe(optimizer=optimizer, lr=lr)))
    return CertifiedCell(
        threat, "0" * 16, wire, outcome, step=step, best=best, best_at_any_cost=best, last=best, **given
    )


def others(folder: Path) -> Certificate:
    """A certificate without its runs of invariant optimizers."""
    found = read_certificate(folder)
    kept = tuple(one for one in found.cells if not OPTIMIZERS[one.attack.recipe.optimizer].invariant)
    return replace(found, cells=kept)


def test_each_says_what_it_came_to(opened: Path) -> None:
    rows = (
        *(row("kfac", 1e-2, 0.3), row("kfac", 1e-3, 0.45)),
        *(row("adahessian", 0.1, 0.7, step=40), row("adahessian", 0.01, 0.8, step=20)),
        row("kron", 1e-4, None),
        row("kfac", 1e-4, 0.9, threat=UNLOCKED),
        row("kfac", 1e-4, 0.9, step=10, threat=CONTROLS),
        row("muon", 1e-4, 0.9),
    )
    certificate = others(opened)
    certificate = replace(certificate, cells=(*certificate.cells, *rows))
    assert invariant_attackers(certificate) == [
        "adahessian (unaffected by a scale of every weight of its own), 2 runs: reached the target, first "
        "adahessian, lr 0.01 at step 20",
        "kron (unaffected by a linear map of every layer's inputs and of its outputs), 1 run: no score within the "
        "utility budget",
        "kfac (unaffected by a linear map of every layer's inputs and of its outputs), 2 runs: did not reach the "
        "target; best 0.45 at kfac, lr 1e-3",
    ]
    said = (markdown(certificate, []), page(certificate, [], {}))
    assert all("Invariant attackers" in text and INVARIANT in text and "best 0.45 at kfac" in text for text in said)


def test_what_was_run_on_the_undefended_model_is_drawn_as_its_own(
    opened: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Controls of a threat model reach the target without a lock: they say nothing against it."""
    names = (UNLOCKED, CONTROLS, "T2", UNCOUNTED)
    rows = [replace(row("adamw", 1e-4, 0.9, step=10, threat=name), cell=f"{at:016}") for at, name in enumerate(names)]
    assert [one.undefended for one in rows] == [True, True, False, False]
    assert ["reached" in mark_title(one, Kind.BROKEN) for one in rows] == [True, True, False, False]
    panels = list[list[str]]()
    monkeypatch.setattr(
        "specdef.report.trajectories._draw",
        lambda _axes, _certificate, pairs: panels.append([one.threat_model for one, _ in pairs]) or [],
    )
    certificate = replace(read_certificate(opened), cells=tuple(rows))
    cells: list[Any] = [SimpleNamespace(key=one.cell) for one in rows]
    trajectories(certificate, cells, tmp_path / "picture.png")
    assert panels == [[UNLOCKED, CONTROLS], ["T2", UNCOUNTED]]


def test_without_one_there_is_no_such_section(opened: Path) -> None:
    certificate = others(opened)
    assert invariant_attackers(certificate) == []
    assert all("nvariant" not in text for text in (markdown(certificate, []), page(certificate, [], {})))


def test_those_of_the_papers_are_named() -> None:
    assert {name for name, spec in OPTIMIZERS.items() if spec.invariant} == {"adahessian", "kron", "xmat", "kfac"}
