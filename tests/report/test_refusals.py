"""Certificates and result files that are missing, malformed or at odds with each other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic import change_certificate

from specdef.certify.certificate_file import read_cells, read_certificate
from specdef.errors import SpecdefError
from specdef.report.files import write_bytes
from specdef.report.markdown import markdown, verdict_table
from specdef.report.page import page
from specdef.report.write import write_report

WRITTEN = {"certificate.md", "heatmap.png", "trajectories.png", "index.html"}


def test_result_files_that_are_gone_are_said_to_be(copy: Path) -> None:
    certificate = read_certificate(copy)
    gone = sorted((copy / "cells").glob("*.json"))[:3]
    for path in gone:
        path.unlink()
    cells = read_cells(copy, certificate)
    assert "result files of 3 cells are not in this folder" in page(certificate, cells, {})
    shutil.rmtree(copy / "cells")
    assert write_report(copy)


def test_other_cells_of_a_shared_folder_are_left_out(copy: Path) -> None:
    certificate = read_certificate(copy)
    before = read_cells(copy, certificate)
    (copy / "cells" / f"{'0' * 16}.json").write_text("not JSON")
    assert read_cells(copy, certificate) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("specdef_certificate"), "certificate of version 1 or 2; got no version"),
        (lambda c: c.update(specdef_certificate=3), "certificate of version 1 or 2; got version 3"),
        (lambda c: c.pop("task"), "missing required field `task`"),
        (lambda c: c["task"].update(target="high"), r"Expected `float`, got `str` - at `\$.task.target`"),
        (lambda c: c["threat_models"].update(T0=[]), r"Expected `object`, got `array` - at `\$.threat_models"),
        (lambda c: c["threat_models"]["T1"].update(steps=None), r"Expected the steps .* at `\$.*T1.steps`"),
        (lambda c: c["threat_models"]["T0"].update(score=None), r"Expected the score .* at `\$.*T0.score`"),
        (lambda c: c["threat_models"]["T1"].update(cell="0" * 16), r"Expected a cell .* at `\$.*T1.cell`"),
        (lambda c: c["threat_models"]["T1"].update(verdict={"kind": "won"}), "Invalid value 'won'"),
        (lambda c: c["cells"][0].update(outcome="won"), r"Invalid enum value 'won' - at `\$.cells\[0\].outcome`"),
        (lambda c: _first_broken(c).update(step=None), r"Expected the step of a broken cell"),
        (lambda c: _first_broken(c).update(best=None), r"Expected the best evaluation"),
        (lambda c: c["cells"][0]["config"]["recipe"].update(lr=-1), "`lr` must be"),
        (lambda c: c.update(cells={}), r"Expected `array`, got `object` - at `\$.cells`"),
        (lambda c: c.update(seconds=float("nan")), "certificate.json is not .*NaN"),
    ],
)
def test_malformed_certificates_are_refused_by_name(
    copy: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    change_certificate(copy, change)
    with pytest.raises(SpecdefError, match=f"`folder` must hold .*{message}"):
        write_report(copy)
    assert not WRITTEN & {path.name for path in copy.iterdir()}


def _first_broken(content: dict[str, Any]) -> dict[str, Any]:
    return next(row for row in content["cells"] if row["outcome"] == "broken")


def _leaves(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    yield from ((*path, key) for key, _ in items)
    for key, inner in items:
        yield from _leaves(inner, *path, key)


@pytest.mark.parametrize("value", [None, "x", -1, [], {}, ["x"], {"x": None}])
def test_any_value_changed_gives_a_report_or_a_sentence(copy: Path, value: object) -> None:
    original = json.loads((copy / "certificate.json").read_text())
    read = 0
    for path in _leaves(original):
        content = json.loads(json.dumps(original))
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (copy / "certificate.json").write_text(json.dumps(content))
        try:
            certificate = read_certificate(copy)
        except SpecdefError:
            continue
        read += 1
        assert markdown(certificate, [])
        assert page(certificate, [], {})
        verdict_table(certificate)
    assert read or value == {"x": None}, "no field takes such an object"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1'])
def test_files_that_are_no_certificate_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(SpecdefError, match=r"must hold certificate.json; .* has none. Run `specdef certify` first"):
        read_certificate(tmp_path)
    (tmp_path / "certificate.json").write_text(content)
    with pytest.raises(SpecdefError, match="`folder` must hold"):
        read_certificate(tmp_path)


def test_result_files_that_disagree_or_are_cut_short_are_refused(copy: Path) -> None:
    certificate = read_certificate(copy)
    path = copy / "cells" / f"{certificate.cells[0].cell}.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "result": {**content["result"], "outcome": "invalid"}}))
    with pytest.raises(SpecdefError, match=f"{path.name} and certificate.json differ in outcome"):
        read_cells(copy, certificate)
    path.write_text(json.dumps({**content, "result": {}}))
    with pytest.raises(SpecdefError, match=rf"{path.name} is not .*missing required field `outcome`"):
        read_cells(copy, certificate)


def test_a_folder_that_cannot_be_written_leaves_nothing_behind(opened: Path, tmp_path: Path) -> None:
    certificate = read_certificate(opened)
    with pytest.raises(SpecdefError, match=r"`folder` must be writable; writing index.html failed"):
        write_bytes(tmp_path / "missing" / "index.html", page(certificate, [], {}).encode())
    assert not (tmp_path / "missing").exists()
