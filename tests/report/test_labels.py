"""Labels are words for people: rewording every one of them changes no figure, no verdict and no colour."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from synthetic import certify, falls_to_search

from specdef.attacks.base import Attack
from specdef.certify.certificate import Certificate
from specdef.certify.certificate_file import read_cells, read_certificate
from specdef.report import phrases
from specdef.report.compare import comparison
from specdef.report.entries import paper_tables
from specdef.report.kind import Kind
from specdef.report.markdown import markdown
from specdef.report.outside import outside_budget
from specdef.report.page import page
from specdef.report.sentences import verdict_rows


def reword(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """Every label of attacks, outcomes and verdicts becomes one word without a digit."""
    for name in ("label", "label_without_rate"):
        monkeypatch.setattr(Attack, name, property(lambda self: word))
    for names in (phrases.KINDS, phrases.SHORT, phrases.HELD):
        for key in names:
            monkeypatch.setitem(names, key, word)  # type: ignore[arg-type, misc]
    monkeypatch.setattr(phrases, "verdict", lambda found: word)
    monkeypatch.setattr(phrases, "part", lambda name: word)


def figures(certificate: Certificate) -> list[object]:
    """What tables say in numbers, colours and marks."""
    found: list[object] = []
    for table in paper_tables(certificate):
        for (attack, lr), entry in table.entries.items():
            found.append((table.name, attack, lr, entry.kind, entry.steps, entry.steps_std, entry.score, entry.marks))
    rows = verdict_rows(certificate)
    return [*found, *((row[0], *row[3:]) for row in rows)]


def numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"(?<![\w.#&-])\d[\d.]*(?:e[+-]?\d+)?", text))


def test_a_report_with_other_labels_has_the_same_figures(opened: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = read_certificate(opened)
    cells = read_cells(opened, certificate)
    before = figures(certificate)
    assert set(Kind) == {row[3] for row in before if isinstance(row[3], Kind)}  # type: ignore[index]
    said = {}
    for word in ("thing", "matter"):
        with monkeypatch.context() as patch:
            reword(patch, word)
            assert figures(certificate) == before
            texts = (
                markdown(certificate, cells),
                page(certificate, cells, {}),
                comparison({"one": certificate, "two": certificate}, {}),
                *outside_budget(certificate, cells),
            )
            assert all(word in text for text in texts)
            said[word] = [numbers(text) for text in texts]
    assert said["thing"] == said["matter"]
    assert all(sum(found.values()) > 2 for found in said["thing"])


def test_a_certificate_made_with_other_labels_is_the_same(
    opened: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reword(monkeypatch, "thing")
    certify(tmp_path, falls_to_search)
    made, before = (json.loads((folder / "certificate.json").read_text()) for folder in (tmp_path, opened))
    for content in (made, before):
        for name in ("seconds", "environment"):
            del content[name]
        for found in (content["unlocked"], *content["threat_models"].values()):
            del found["not_tried"]
    assert made == before
