"""The page's first screen: verdicts with their uncertainty, every run at its rate, what breaking cost, what is left."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from specdef.certify.certificate import Certificate
from specdef.certify.certificate_file import read_cells, read_certificate
from specdef.certify.statistics import Decision, Interval
from specdef.report.entries import Entry, rows_of, slowed_from
from specdef.report.kind import Kind
from specdef.report.links import place, to_entry
from specdef.report.marks import DARK, LIGHT, SHAPES, mark_class
from specdef.report.page import page
from specdef.report.rates_picture import APART, rates_picture
from specdef.report.style import CSS
from specdef.report.write import write_report

MARK = re.compile(
    r'<a class="(mark-\w+)" href="#cell-(\w+)"><title>([^<]*)</title><svg x="([\d.]+)%" y="([\d.]+)"(.*?)</svg></a>'
)


def _page(folder: Path) -> str:
    certificate = read_certificate(folder)
    return page(certificate, read_cells(folder, certificate), {})


def _rows(certificate: Certificate) -> dict[str, list[tuple[str, ...]]]:
    """Heading of a row -> (class, key, title, x, y, shape) of its marks."""
    drawn = rates_picture(certificate, to_entry, title="picture")
    found = re.findall(
        r'<p class="row">([^<]*)</p>\n<svg class="lanes".*?>(.*?)</svg>\n(?=<p|<svg class="axis")', drawn, re.S
    )
    return {title: MARK.findall(body) for title, body in found}


def test_verdicts_come_first_then_the_picture_then_the_cost_then_what_was_not_tried(opened: Path) -> None:
    headings = re.findall("<h2>(.*?)</h2>", _page(opened))
    assert headings[:4] == [
        "Verdicts, and how sure they are",
        "Every run by learning rate",
        "Cost to break",
        "What was not tried",
    ]


def test_every_run_on_the_task_has_a_mark_that_leads_to_its_entry_and_its_file(copy: Path) -> None:
    write_report(copy)
    certificate, text = read_certificate(copy), (copy / "index.html").read_text()
    marks = [mark for row in _rows(certificate).values() for mark in row]
    assert {key for _, key, *_ in marks} == {row.cell for row in certificate.cells if row.attacks_task}
    for row in certificate.cells:
        assert text.count(f'id="{place(row.cell)}"') == 1
        entry = text[text.index(f'id="{place(row.cell)}"') :].partition("</details>")[0]
        assert f'href="cells/{row.cell}.json"' in entry
        assert (copy / "cells" / f"{row.cell}.json").is_file()
        if row.undefended and row.outcome.counts:
            said = "target not reached" if row.step is None else "target reached"
            assert f'<summary><span class="badge none">{said}</span>' in entry
    for target in re.findall('href="#([^"]*)"', text):
        assert f'id="{target}"' in text


def test_a_threat_models_row_shows_every_run_its_verdict_is_read_from_as_it_ended(opened: Path) -> None:
    certificate = read_certificate(opened)
    rows = _rows(certificate)
    assert next(iter(rows)).startswith("The undefended model")
    for name, verdict in certificate.threat_models.items():
        marks = next(marks for title, marks in rows.items() if title.startswith(f"{name}: "))
        expected = {
            row.cell: mark_class(Entry((row,), slowed_from(certificate, name)).kind)
            for row in rows_of(certificate, name)
        }
        assert {key: look for look, key, *_ in marks} == expected
        assert len(marks) == verdict.num_cells
        assert [key for _, key, _, _, _, shape in marks if "ring" in shape] == [verdict.cell]


def test_a_mark_stands_at_its_rate_and_touches_no_other(opened: Path) -> None:
    certificate = read_certificate(opened)
    drawn = rates_picture(certificate, to_entry, title="picture")
    ticks = [(float(x), float(name)) for x, name in re.findall(r'<text x="([\d.]+)%"[^>]*>([^<]*)</text>', drawn)]
    (left, low), (right, high) = ticks[0], ticks[-1]
    assert len(ticks) > 2
    for row in _rows(certificate).values():
        for _, key, _, x, _, _ in row:
            share = (float(x) - left) / (right - left)
            rate = low * (high / low) ** share
            assert math.isclose(rate, certificate.by_key[key].attack.recipe.lr, rel_tol=2e-3)
        for first, second in combinations(row, 2):
            apart = abs(float(first[3]) - float(second[3])) / 100
            assert first[4] != second[4] or apart >= APART


def test_a_marks_title_says_the_attack_and_how_it_ended(opened: Path) -> None:
    titles = {title: {mark[2] for mark in marks} for title, marks in _rows(read_certificate(opened)).items()}
    said = {name[:2]: found for name, found in titles.items()}
    assert "adamw, lr 3e-5, seed 0: held by stall, best score 0.45" in said["T0"]
    assert "sgd, lr 3.12e-3, seed 0: broken after 20 steps" in said["T2"]
    assert "adamw, lr 3e-4, seed 1: target reached after 30 steps" in said["Th"]


def _luminance(color: str) -> float:
    shares = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_marks_differ_in_shape_and_colour_and_stand_out_on_both_grounds() -> None:
    assert set(SHAPES) == set(LIGHT) == set(DARK) == set(Kind)
    grounds = re.findall(r"--card: (#\w{6})", CSS)
    assert len(grounds) == 2
    assert len(set(SHAPES.values())) == len(Kind)
    for colors, ground in zip((LIGHT, DARK), grounds, strict=True):
        assert len(set(colors.values())) == len(Kind)
        for color in colors.values():
            dark, light = sorted((_luminance(color), _luminance(ground)))
            assert (light + 0.05) / (dark + 0.05) >= 3


def test_a_threat_model_that_was_not_tried_has_a_row_that_says_so(held: Path) -> None:
    drawn = rates_picture(read_certificate(held), to_entry, title="picture")
    for name in ("T1", "T2", "T3", "T4"):
        assert re.search(f'<p class="row">{name}: [^<]* — not tried</p>', drawn)
    assert not re.search('<p class="row">T0: [^<]* — not tried</p>', drawn)


def _cards(certificate: Certificate) -> dict[str, str]:
    text = page(certificate, [], {})
    return {card[:2]: card for card in re.findall(r'<article class="card">\n<h3>(.*?)</article>', text, re.S)}


@pytest.mark.parametrize(
    ("decision", "words"),
    [(Decision.ABOVE, "its mean lies above"), (Decision.BELOW, "lies below"), (Decision.OPEN, "not decided")],
)
def test_a_verdict_stands_beside_its_score_interval_seeds_decision_and_power(
    held: Path, decision: Decision, words: str
) -> None:
    certificate = read_certificate(held)
    found = certificate.threat_models["T0"]
    known = replace(found, interval=Interval(0.312, 0.487, 0.9, 3), decision=decision, detectable=0.713, seeds=3)
    card = _cards(replace(certificate, threat_models={"T0": known}))["T0"]
    for expected in ("held by stall", "0.4<", "90 % interval", "0.312 to 0.487", words, "0.713", "0 of 3 reached"):
        assert expected in card
    assert "not recorded" not in card
    without = _cards(certificate)["T0"]
    assert "not recorded" in without, "silence would read as certainty"
    assert "interval and decision" in without


def test_what_breaking_cost_stands_beside_the_undefended_models_cost(opened: Path) -> None:
    certificate = read_certificate(opened)
    text = _page(opened).partition("<h2>Cost to break</h2>")[2].partition("</section>")[0]
    rows = {
        re.sub("<.*?>", "", name)[:3]: [re.sub("<.*?>", "", cell) for cell in re.findall("<td>(.*?)</td>", cells)]
        for name, cells in re.findall('<tr><th scope="row">(.*?)</th>(.*?)</tr>', text)
    }
    assert certificate.unlocked.steps == 30
    assert rows["The"][:2] == ["30 ± 8.2", "x1"]
    assert rows["T0"][:2] == ["not reached in 60", "—"]
    assert rows["T1"][:2] == ["55 ± 5", "x1.83"]
    assert rows["T2"][:2] == ["20", "x0.667"]
    for name, found in (("The", certificate.unlocked), ("T2", certificate.threat_models["T2"])):
        assert found.seconds is not None
        assert rows[name][2] == f"{found.seconds:.0f} s"


COMMITTED = Path(__file__).parents[2] / "experiments" / "results" / "certificates"


@pytest.mark.parametrize("name", ["unlocked", "paper", "exact"])
def test_the_committed_pages_lead_to_every_committed_result(name: str) -> None:
    certificate = read_certificate(COMMITTED, name=f"{name}.json")
    text = (COMMITTED / name / "index.html").read_text()
    files = set(re.findall(r'href="(\.\./cells/[^"]*)"', text))
    assert files == {f"../cells/{row.cell}.json" for row in certificate.cells}
    assert all((COMMITTED / name / file).is_file() for file in files)
    assert {key for _, key, *_ in MARK.findall(text)} == {row.cell for row in certificate.cells if row.attacks_task}
