"""Folders of attacks side by side: every run of each, one picture, and no claim that unlike runs compare."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import result

from specdef.attacks.base import Attack
from specdef.certify.cell import Cell, Subject
from specdef.certify.cell_result import FinishedCell
from specdef.certify.store import Store, stored_cells
from specdef.errors import SpecdefError
from specdef.report.compare import write_comparison
from specdef.report.compare_runs import compared_panels, warning
from specdef.tasks.base import TaskSpec
from specdef.training.recipe import Recipe


def attacks(folder: Path, kind: str, *, lr: float = 1e-4, digest: str = "t", model: str = "m", seeds: int = 2) -> Path:
    store = Store(folder)
    for seed in range(seeds):
        subject = Subject(f"/models/{model}", model * 16)
        cell = Cell(subject, TaskSpec("facts"), digest, None, "x", Attack(Recipe(lr=lr, seed=seed)))
        found = result(kind, target=0.6, seed=seed)
        store.write(cell, FinishedCell(found.result, replace(found.measured, target=0.6)))
    return store.folder


def test_every_run_of_every_folder_is_in_the_page(tmp_path: Path) -> None:
    folders = [attacks(tmp_path / "one", "broken 20"), attacks(tmp_path / "two", "collapse 0.5", model="n", seeds=1)]
    path = write_comparison(folders, tmp_path / "pages.html")
    page = path.read_text()
    assert page.count("<img") == 1
    assert re.findall(r'<th scope="row">(\w+)</th>', page) == ["one", "one", "two"]
    links = re.findall('href="([^"]*)"', page)
    assert [(tmp_path / link).is_file() for link in links] == [True] * 3
    assert "steps and scores compare directly" in page


def test_folders_share_a_panel_where_they_share_an_attack(tmp_path: Path) -> None:
    one, two = attacks(tmp_path / "one", "broken 20"), attacks(tmp_path / "two", "stall 0.3", model="n")
    other = attacks(tmp_path / "other", "stall 0.3", lr=1e-5)
    shared = compared_panels({path.name: stored_cells(path) for path in (one, two)})
    assert {name: {line: len(cells) for line, cells in lines.items()} for name, lines in shared.items()} == {
        "adamw, lr 1e-4": {"one": 2, "two": 2}
    }
    apart = compared_panels({path.name: stored_cells(path) for path in (one, other)})
    assert {name: set(lines) for name, lines in apart.items()} == {"": {"one", "other"}}
    attacks(one, "stall 0.3", model="k")
    models = compared_panels({path.name: stored_cells(path) for path in (one, two)})
    assert set(models["adamw, lr 1e-4"]) == {"one: m", "one: k", "two"}


def test_unlike_tasks_are_said_not_to_compare(tmp_path: Path) -> None:
    one, two = attacks(tmp_path / "one", "broken 20"), attacks(tmp_path / "two", "broken 20", digest="u")
    said = warning({path.name: stored_cells(path) for path in (one, two)})
    assert said.startswith("These runs differ in task:")


def test_certificates_and_attacks_are_not_mixed(opened: Path, tmp_path: Path) -> None:
    one = attacks(tmp_path / "one", "broken 20")
    with pytest.raises(SpecdefError, match=r"`folders` must all hold certificates or all hold single attacks; .*one"):
        write_comparison([opened, one], tmp_path / "page.html")
    shutil.rmtree(one / "cells")
    with pytest.raises(SpecdefError, match=r"must hold certificate.json"):
        write_comparison([opened, one], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
