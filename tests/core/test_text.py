"""What strangers' names become before they are shown."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdef.core.text import LONGEST, shown, shown_lines

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))  # lone surrogates too
DANGEROUS = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of controls, format marks, surrogates, and separators of lines and paragraphs."""


@given(ANY_TEXT)
def test_nothing_dangerous_is_left_and_every_text_can_be_written(text: str) -> None:
    found = shown(text)
    found.encode("utf-8")
    assert not {unicodedata.category(character) for character in found} & DANGEROUS


@given(ANY_TEXT)
def test_shown_twice_is_shown_once(text: str) -> None:
    assert shown(shown(text)) == shown(text)
    assert shown_lines(shown_lines(text)) == shown_lines(text)


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "/tmp/a b/Größe 模型 🙂", "", "C:\\new"])
def test_an_honest_name_stays(name: str) -> None:
    assert shown(name) == name


@pytest.mark.parametrize(
    ("name", "visible"),
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u2066b\u200bc\ufeff", r"a\u2066b\u200bc\ufeff"),
        ("caf\udce9", r"caf\udce9"),
        ("\x9b31m", r"\x9b31m"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(name: str, visible: str) -> None:
    assert shown(name) == visible


def test_a_name_of_megabytes_is_cut() -> None:
    for name in ("x" * 10_000_000, "\x1b" * 10_000_000):
        assert len(shown(name)) == LONGEST
        assert shown(name).endswith("…")
        assert shown(shown(name)) == shown(name)
    assert shown("x" * LONGEST) == "x" * LONGEST


def test_a_whole_text_keeps_its_lines() -> None:
    assert shown_lines("one\ntwo\x1b[2J\n" + "x" * 5000) == "one\ntwo\\x1b[2J\n" + "x" * 5000
