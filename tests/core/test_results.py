"""Every public result: a short text, a small table, JSON data, a data frame; no secret in any of them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

import pico_text
import pytest

import specdef
from specdef.core.results import LINES, WIDTH, Records, Result, brief
from specdef.errors import SpecdefError
from specdef.locks.key import Key

CERTIFICATES = sorted((Path(__file__).parents[2] / "experiments" / "results").rglob("certificate.json"))


@dataclass(frozen=True, repr=False)
class Made(Records):
    """A result with everything in it that can be too long."""

    secret: ClassVar[frozenset[str]] = frozenset({"key"})

    name: str
    key: bytes
    many: tuple[float, ...]
    nested: dict[str, tuple[int, ...]]

    def records(self) -> list[dict[str, Any]]:
        return [{"value": value} for value in self.many]


MADE = Made("<b>\x1b[31m" + "x" * 999, b"sesame", (1.0, float("inf")) * 9, {"vo.0": (417,)})


def check_shown(result: Result) -> None:
    lines = repr(result).splitlines()
    assert lines[0] == type(result).__name__
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= WIDTH
    table = result._repr_html_()
    assert table.startswith("<table>")
    assert len(table) < 6000
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()
    if isinstance(result, Records):
        assert len(result.to_pandas()) == len(result.records())


def test_long_and_odd_values_are_cut_and_secrets_left_out() -> None:
    check_shown(MADE)
    for text in (repr(MADE), MADE._repr_html_(), str(MADE.to_dict())):
        assert "sesame" not in text
        assert "key" not in text
    assert "\x1b" not in repr(MADE)
    assert "<b>" not in MADE._repr_html_()
    assert "417" not in repr(MADE)
    assert MADE.to_dict()["many"][:2] == [1.0, None]


def test_more_lines_than_fit_are_counted() -> None:
    class Long(Result):
        def summary(self) -> dict[str, str]:
            return {f"line {number}": "" for number in range(50)}

    assert len(repr(Long()).splitlines()) == LINES
    assert "32 more; see to_dict()" in repr(Long())


def test_without_pandas_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SpecdefError, match="`to_pandas` needs the package pandas"):
        MADE.to_pandas()


def test_numbers_and_lists_in_words() -> None:
    assert [brief(value) for value in (True, 1234567, 0.5, [], {"a": [1]}, [1, 2])] == [
        *("yes", "1,234,567", "0.5", "none", "1 entry", "1, 2"),
    ]


def test_the_results_of_the_verbs(toy_model: Path, tmp_path: Path) -> None:
    report = specdef.lock(toy_model, tmp_path / "locked", preset="exact")
    check_shown(report)
    assert report.to_dict()["out"] == str(tmp_path / "locked")
    check_shown(specdef.verify(tmp_path / "locked", original=toy_model))
    check_shown(specdef.inspect_model(tmp_path / "locked"))
    model, tokenizer = pico_text.load(toy_model)
    locked = specdef.lock(model)
    check_shown(locked)
    check_shown(locked.report)
    assert "key" not in locked.to_dict()
    assert "originals" not in repr(locked.key)
    recipe = specdef.Recipe(steps=2, eval_every=1)
    cell = specdef.attack(model, tokenizer=tokenizer, task="facts", utility="perplexity", recipe=recipe, threads=1)
    check_shown(cell)
    assert list(cell.to_pandas()["step"]) == [0, 1, 2]
    check_shown(specdef.lock(pico_text.load(toy_model)[0], preset="paper", targets=["*.gate_proj"], rank=3).report)


def test_a_key_shows_nothing_of_what_it_holds() -> None:
    assert "secret" not in repr(Key("fold", {}, {}, ({"pair": "secret"},), {"tensor": b"secret"}))


@pytest.mark.parametrize("path", CERTIFICATES, ids=lambda path: path.parent.name)
def test_committed_certificates(path: Path) -> None:
    certificate = specdef.read_certificate(path.parent)
    check_shown(certificate)
    frame = certificate.to_pandas()
    assert list(frame["cell"]) == [cell.cell for cell in certificate.cells]
    assert set(certificate.threat_models) <= {word for line in repr(certificate).splitlines() for word in line.split()}


def test_every_public_report_is_a_result() -> None:
    names = [
        name for name in dir(specdef) if name.endswith(("Report", "Results", "Lock", "Cell")) or name == "Certificate"
    ]
    assert len(names) >= 10
    for name in names:
        found = getattr(specdef, name)
        assert is_dataclass(found)
        assert issubclass(found, Result), name
        assert found.__repr__ is Result.__repr__, name
