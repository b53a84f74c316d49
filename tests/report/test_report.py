"""Reports of made-up results: what they say, what they escape, what they refuse."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic import certify, change_certificate, holds

from specdef.attacks.base import Attack
from specdef.attacks.wire import attack_to_wire
from specdef.certify.certificate import Certificate
from specdef.certify.certificate_file import read_cells, read_certificate
from specdef.certify.certified_cell import CertifiedCell
from specdef.certify.effort import EFFORTS, Effort
from specdef.certify.result import Point
from specdef.certify.verdict_kinds import NotMeasured
from specdef.errors import SpecdefError
from specdef.report.entries import Entry, paper_tables
from specdef.report.heatmaps import drawn_cells, heat_map
from specdef.report.kind import Kind
from specdef.report.markdown import markdown, verdict_table
from specdef.report.outside import outside_budget
from specdef.report.page import page
from specdef.report.sentences import headline, verdict_sentences
from specdef.report.write import write_report
from specdef.training.outcome import Outcome

WRITTEN = {"certificate.md", "heatmap.png", "trajectories.png", "index.html"}


def _entries(folder: Path) -> dict[str, dict[tuple[str, float], Entry]]:
    """Table -> (attack in words, learning rate) -> entry."""
    return {
        table.name: {(attack.label_without_rate, lr): entry for (attack, lr), entry in table.entries.items()}
        for table in paper_tables(read_certificate(folder))
    }


def test_the_synthetic_certificate_has_every_outcome(opened: Path) -> None:
    kinds = {entry.kind for entries in _entries(opened).values() for entry in entries.values()}
    assert kinds == set(Kind)


@pytest.mark.parametrize(
    ("name", "attack", "lr", "text"),
    [
        ("unlocked", "adamw", 3e-4, "30 ± 8.2 (0.65)"),
        ("unlocked", "adamw", 1e-4, "40 (0.65)"),
        ("T0", "adamw", 3e-5, "— (0.45); 1 crashed"),
        ("T0", "adamw", 3e-4, "— (0.25)‡"),
        ("T1", "adamw", 3e-3, "crashed"),
        ("T1", "adamw", 3e-7, "55 ± 5 (0.65); 2/3 seeds; 1 crashed"),
        ("T1", "adamw", 9.49e-7, "60 (0.65)‡§"),
        ("T2", "adamw, no clipping", 3e-7, "invalid"),
        ("T2", "adamw, batch size 16", 3e-7, "55 ± 5 (0.517)‡§; 2/3 seeds"),
    ],
)
def test_entries_have_the_papers_form(opened: Path, name: str, attack: str, lr: float, text: str) -> None:
    assert _entries(opened)[name][attack, lr].text == text


def _row(outcome: Outcome = Outcome.STALL, score: float | None = 0.4, **changes: Any) -> CertifiedCell:
    best = None if score is None else Point(10, score, 40.0)
    given: dict[str, Any] = {"step": None, "diverged_at": None, "recovered": False, "note": "", **changes}
    return CertifiedCell(
        "T0", "0" * 16, attack_to_wire(Attack()), outcome, best=best, best_at_any_cost=best, last=best, **given
    )


def test_one_dagger_when_some_seeds_lost_utility_and_two_when_all_did() -> None:
    lost = _row(Outcome.COLLAPSE, diverged_at=10)
    assert Entry((_row(), lost)).text == "— (0.4)†"
    assert Entry((lost, lost)).text == "— (0.4)‡"
    assert Entry((_row(diverged_at=10, recovered=True), _row())).text == "— (0.4)†§"
    assert Entry((_row(), _row())).marks == ""


def test_one_broken_seed_makes_an_entry_broken() -> None:
    broken = _row(Outcome.BROKEN, 0.7, step=20)
    assert Entry((_row(score=0.9), broken), 21.0).kind == Kind.BROKEN
    assert Entry((broken,), 20.0).kind == Kind.SLOWED
    assert Entry((_row(Outcome.INVALID), _row(Outcome.CRASHED, None))).kind == Kind.INVALID


def test_tables_of_a_threat_model_hold_every_cell_its_verdict_is_read_from(opened: Path) -> None:
    certificate = read_certificate(opened)
    for table in paper_tables(certificate):
        if table.name != "unlocked":
            cells = sum(len(entry.rows) for entry in table.entries.values())
            assert cells == certificate.threat_models[table.name].num_cells


def test_the_unfavourable_reading_comes_first(opened: Path) -> None:
    certificate = read_certificate(opened)
    said = headline(certificate)
    assert said.startswith("This lock does NOT hold: under T1")
    assert "adamw, lr 3e-7 reaches the target within the utility budget after 55 steps" in said
    assert "the undefended model needs 30" in said
    assert "slowed (x1.8), not prevented" in said
    assert "Under T2 it is not even slowed: sgd, lr 3.12e-3 needs 20 steps" in said
    assert markdown(certificate, []).index("does NOT hold") < markdown(certificate, []).index("T0")
    worst = certificate.threat_models["T0"].cell
    assert f"adamw, lr 3e-5 (cell {worst}), scored 0.45" in verdict_sentences(certificate, "T0")
    assert "1 of 6 cells count for nothing" in verdict_sentences(certificate, "T0")
    assert "more steps may reach it" in verdict_sentences(certificate, "T0")


def test_targets_reached_outside_the_budget_are_told(opened: Path, held: Path) -> None:
    certificate = read_certificate(opened)
    cells = read_cells(opened, certificate)
    found = outside_budget(certificate, cells)
    key = next(row.cell for row in certificate.cells if (row.threat_model, row.attack.recipe.lr) == ("T0", 1e-3))
    expected = f"T0: adamw, lr 1e-3, seed 0 (cell {key}): score 0.683 at step 40, perplexity not finite"
    assert found == [expected]
    assert expected in page(certificate, cells, {})
    assert "count them as broken" in markdown(certificate, cells)
    other = read_certificate(held)
    assert "count them as broken" not in markdown(other, read_cells(held, other))


def test_held_names_its_limits(held: Path) -> None:
    certificate = read_certificate(held)
    said = headline(certificate)
    assert said.startswith("Held under T0 within 60 steps; that says nothing about threat models T1, T2, T3 and T4")
    for text in (markdown(certificate, []), page(certificate, [], {})):
        assert "threat model T2" in text
        assert "NOT hold" not in text
        assert not re.search(r"\b(secure|safe|safely|proven)\b", text)


def test_an_unlocked_model_and_no_measurement_are_called_so(copy: Path) -> None:
    certificate = read_certificate(copy)
    subject = replace(certificate.subject, digest=certificate.original.digest)
    assert headline(replace(certificate, subject=subject)).startswith("This model carries no lock")
    nothing = {name: replace(found, verdict=NotMeasured()) for name, found in certificate.threat_models.items()}
    for threats in (nothing, {}):
        said = headline(replace(certificate, threat_models=threats))
        assert said.startswith("Nothing can be said about this lock")


def test_a_folder_without_a_locks_manifest_is_called_a_defence(opened: Path) -> None:
    certificate = read_certificate(opened)
    other = replace(certificate, subject=replace(certificate.subject, method="unknown"))
    assert headline(other).startswith("This defence does NOT hold: under T1")
    nothing = replace(other, threat_models={})
    assert headline(nothing).startswith("Nothing can be said about this defence")


def _printed(certificate: Certificate) -> str:
    console = Console(width=400, file=io.StringIO(), record=True)
    console.print(verdict_table(certificate))
    return console.export_text()


def test_the_terminal_table_names_verdicts_and_worst_cells(opened: Path) -> None:
    said = _printed(read_certificate(opened))
    assert "does NOT hold" in said
    for expected in ("undefended model", "held by stall", "slowed x1.8", "sgd, lr 3.12e-3", "20 ± 8.2"):
        assert expected in said


def test_a_report_is_four_files_and_changes_no_result(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    written = write_report(copy)
    assert {path.name for path in written} == WRITTEN
    assert all(path.stat().st_size for path in written)
    assert {path: path.read_bytes() for path in before} == before
    assert set(copy.rglob("*")) == {*before, copy / "cells", *written}
    first = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_report(copy)] == first


class _Page(HTMLParser):
    """Tags, attributes and text of a page; every tag must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_whole_and_loads_nothing(copy: Path) -> None:
    write_report(copy)
    text = (copy / "index.html").read_text()
    found = _Page(text)
    names = [name for name, _ in found.tags]
    assert found.open == []
    assert not {"script", "link", "iframe", "object"} & set(names)
    assert "http:" not in text
    assert "https:" not in text
    for name, attributes in found.tags:
        assert not any(key.startswith("on") for key in attributes)
        if "href" in attributes:
            assert name == "a"
            assert re.fullmatch(r"#cell-[0-9a-f]{16}|cells/[0-9a-f]{16}\.json", str(attributes["href"]))
        if name == "img":
            assert str(attributes["src"]).startswith("data:image/png;base64,")
            assert attributes["alt"]
        if name == "th":
            assert attributes["scope"] in ("row", "col")
    assert names.count("table") == names.count("caption")
    assert names.count("h1") == 1
    rows = len(read_certificate(copy).cells)
    assert names.count("details") == rows + 1, "one for every cell, and one below the picture of all lines"
    assert "not finite" in found.words
    assert str(copy) not in text
    assert "/nowhere" not in text


HOSTILE = "<script>alert(1)</script> | `x` [y](http://e.xample) $z_1$ \u202e\x1b[31m]\n# no heading"


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_are_shown_and_never_obeyed(copy: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["subject"]["name"] = content["environment"]["hardware"] = HOSTILE
        content["not_tried"].append(HOSTILE)
        for row in content["cells"]:
            row["config"] |= {"adapter": None, "freeze": HOSTILE}
        content["cells"][0]["note"] = HOSTILE
        content["command"] = f"specdef certify {HOSTILE}"

    change_certificate(copy, change)
    shutil.rmtree(copy / "cells")
    write_report(copy)
    found = _Page((copy / "index.html").read_text())
    assert "script" not in [name for name, _ in found.tags]
    assert "Certificate: <script>alert(1)</script> | `x` [y](http://e.xample)" in "".join(found.words)
    text = (copy / "certificate.md").read_text()
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("    specdef certify"))
    assert not re.search(r"(?<!\\)<", prose)
    assert "\n# no heading" not in text
    assert "](" not in prose.replace("\\](", "")
    for table in (block.splitlines() for block in text.split("\n\n") if block.startswith("| ")):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    for character in ("\u202e", "\x1b"):
        assert character not in text
        assert character not in "".join(found.words)
    assert "frozen <script>" in _printed(read_certificate(copy))


def test_heat_maps_combine_multipliers_and_refuse_what_cannot_be_compared(
    opened: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    other = tmp_path_factory.mktemp("other")
    certify(other, holds, threats=("T0",), multiplier=16.0)
    first, second = read_certificate(opened), read_certificate(other)
    twin = replace(second, subject=replace(second.subject, digest="f" * 64))
    heat_map([first, second, twin], tmp_path / "both.png")
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SpecdefError, match="`certificates` must hold at least one certificate"):
        heat_map([], tmp_path / "none.png")
    stranger = replace(second, task=replace(second.task, digest="e" * 64))
    with pytest.raises(SpecdefError, match="`certificates` must be of one undefended model, task and recipe"):
        heat_map([first, stranger], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    heat_map([replace(first, cells=())], tmp_path / "empty.png")
    assert (tmp_path / "empty.png").exists()


@pytest.mark.parametrize("effort", EFFORTS.values(), ids=EFFORTS)
def test_a_heat_map_shows_the_ordinary_attack_whenever_its_runs_may_end(effort: Effort, tmp_path: Path) -> None:
    """Runs that end where they are ruined are the same attack: a map of today's certificates was once empty."""
    certificate = certify(tmp_path, holds, ("T0",), effort=effort)
    drawn = drawn_cells(certificate)
    assert {row.attack.stop for row in drawn} == {effort.stop}
    assert {row.attack.recipe.lr for row in drawn if not row.undefended} >= {1e-4, 1e-3}
