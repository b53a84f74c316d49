"""Certificates side by side: every verdict of every one, what differs, and what may not be compared."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from synthetic import certify, change_certificate, holds

from specdef.certify.certificate_file import read_certificate
from specdef.errors import SpecdefError
from specdef.report.compare import write_comparison


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another lock, tried under T0 alone, that held; read only."""
    folder = tmp_path_factory.mktemp("other")
    certify(folder, holds, threats=("T0",), multiplier=16.0, name="another")
    return folder


def test_every_verdict_of_every_certificate_is_in_the_page(opened: Path, other: Path, tmp_path: Path) -> None:
    path = write_comparison([opened, other], tmp_path / "page.html")
    text = path.read_text()
    first, second = re.search(r"<thead>(.*?)</thead>", text, re.S)[1], text  # type: ignore[index]
    assert f">{opened.name}<" in first
    assert f">{other.name}<" in first
    rows = dict(re.findall(r'<tr><th scope="row">(T\d)[^<]*</th>(.*?)</tr>', second))
    assert {name: re.findall(r'<td class="(\w+)">([^<]*)', row) for name, row in rows.items()} == {
        "T0": [("held", "held by stall"), ("held", "held by stall")],
        "T1": [("slow", "slowed x1.8"), ("none", "not tried")],
        "T2": [("open", "broken"), ("none", "not tried")],
        "T3": [("open", "broken"), ("none", "not tried")],
    }
    for folder in (opened, other):
        for found in read_certificate(folder).threat_models.values():
            assert found.score is not None
            assert f"score {found.score:.3g}" in text
    assert "One undefended model, task, recipe and budget" in text
    assert text.count("<img") == 1, "they are drawn in one heat map"
    for name in ("script", "link", "iframe"):
        assert f"<{name}" not in text


def test_every_picture_leads_to_the_result_files_from_where_the_page_lies(
    opened: Path, other: Path, tmp_path: Path
) -> None:
    path = write_comparison([opened, other], tmp_path / "page.html")
    sections = dict(re.findall(r"<section>\n<h2>(.*?)</h2>(.*?)</section>", path.read_text(), re.S))
    found = {}
    for heading in ("Every run by learning rate", "Outcome by learning rate and multiplier"):
        targets = {(tmp_path / target).resolve() for target in re.findall('href="([^"]*)"', sections[heading])}
        assert all(target.is_file() for target in targets)
        found[heading] = targets
    runs = {
        (folder / "cells" / f"{row.cell}.json").resolve()
        for folder in (opened, other)
        for row in read_certificate(folder).cells
        if row.attacks_task
    }
    assert found["Every run by learning rate"] == runs
    assert found["Outcome by learning rate and multiplier"] < runs


def test_pictures_side_by_side_share_one_axis(opened: Path, other: Path, tmp_path: Path) -> None:
    text = write_comparison([opened, other], tmp_path / "page.html").read_text()
    axes = re.findall(r'<svg class="axis".*?</svg>', text, re.S)
    assert len(axes) == 2
    assert len(set(axes)) == 1


def test_certificates_of_different_tasks_are_drawn_apart_and_said_to_be(
    opened: Path, other: Path, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(other, tmp_path / "changed"))
    change_certificate(changed, lambda content: content["task"].update(digest="e" * 64))
    text = write_comparison([opened, other, changed], tmp_path / "page.html").read_text()
    assert "These certificates differ in task: " in text
    assert "do not compare" in text
    assert text.count("<img") == 2


def test_folders_of_one_name_are_told_apart(opened: Path, other: Path, tmp_path: Path) -> None:
    for name, folder in (("a", opened), ("b", other)):
        shutil.copytree(folder, tmp_path / name / "results")
    text = write_comparison([tmp_path / "a/results", tmp_path / "b/results"], tmp_path / "page.html").read_text()
    assert ">a/results<" in text
    assert ">b/results<" in text


def test_what_cannot_be_compared_is_refused(opened: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for folders, got in (([opened], "1"), ([opened, opened / "."], "twice")):
        with pytest.raises(
            SpecdefError, match=f"`folders` must be two results folders or more, each once; got .*{got}"
        ):
            write_comparison(folders, page)
    with pytest.raises(SpecdefError, match=r"`folder` must hold certificate\.json"):
        write_comparison([opened, tmp_path], page)
    with pytest.raises(SpecdefError, match=r"`out` must be a file ending in \.html"):
        write_comparison([opened, tmp_path], tmp_path / "page")
    assert not list(tmp_path.iterdir())
