"""What is printed: no text of a stranger reaches the terminal as more than text, and JSON stays JSON."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from specdef.cli.render import print_json, safe

STRANGE = ["\x1b]0;title\x07", "\x9b2J", "a\u202eb", "x\ny\rz", "\udcff", "[red]x[/red]", "back\\", "\u2028"]


@pytest.mark.parametrize("text", STRANGE)
def test_what_a_terminal_obeys_is_shown_as_text(text: str) -> None:
    shown = Text.from_markup(safe(text)).plain
    assert shown.isprintable()
    assert shown.encode("utf-8")


@given(st.text(st.characters(exclude_characters="\\")))
def test_safe_text_is_one_printable_line_and_ordinary_text_stays(text: str) -> None:
    shown = Text.from_markup(safe(text)).plain
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


def test_json_is_ascii_and_has_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "\x1b[31m\udcff", "utility": math.inf, "points": [(1, math.nan)]})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed
    assert json.loads(printed) == {"name": "\x1b[31m\udcff", "utility": None, "points": [[1, None]]}
