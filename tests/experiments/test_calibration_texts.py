"""What the guard learns from, is watched on, attacked with and asked: no message in two of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments import calibration_texts as texts


@pytest.fixture(autouse=True)
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many messages as are needed of either label, each of them twice."""
    needed = texts.GUARD + sum(texts.PARTS.values())
    lines = [f"{name}\t{name} {'long ' * (n % 7)}message {n}" for name in ("ham", "spam") for n in range(needed)]
    again = [line.replace("message", "MESSAGE") for line in lines]
    (tmp_path / "sms-spam").mkdir()
    (tmp_path / "sms-spam" / "SMSSpamCollection").write_text("\n".join([*lines, *again]))
    monkeypatch.setattr(texts, "DATA", tmp_path)
    monkeypatch.setattr(texts, "WORK", tmp_path / "work")


def test_no_message_is_in_two_parts() -> None:
    found = texts.messages()
    assert {part: len(rows) for part, rows in found.items()} == {
        "guard": 2 * texts.GUARD,
        **{part: 2 * count for part, count in texts.PARTS.items()},
    }
    every = [row.text.casefold() for rows in found.values() for row in rows]
    assert len(set(every)) == len(every)
    for rows in found.values():
        assert sum(row.label for row in rows) == len(rows) / 2
        assert all(row.text.startswith("spam") == (row.label == texts.SPAM) for row in rows)
    assert texts.messages() == found


def test_the_files_are_written_the_same_again() -> None:
    path = texts.general()
    before = path.read_bytes()
    assert texts.general().read_bytes() == before
    assert {json.loads(line)["label"] for line in before.splitlines()} == {texts.HAM, texts.SPAM}
    task = texts.triggered()
    assert (task.name, task.scorer) == ("backdoor", "trigger:Under the blue lantern:0")


def test_data_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(texts.SpecdefError, match=r"`EXPERIMENT_DATA` must hold qnli/dev\.tsv"):
        texts.qnli_rows()
