"""Labelled texts of every shape, and what is said of a malformed one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specdef.errors import TaskError
from specdef.models.samples import Labelled, LabelledPair
from specdef.tasks.text.labelled_rows import labelled_fields, read_labelled

QNLI = 'index\tquestion\tsentence\tlabel\n0\tWho "is it?\tIt is I.\tnot_entailment\r\n\n1\tWhere?\tHere\tentailment\n'
GLUE = {
    "qnli.tsv": (QNLI, [LabelledPair('Who "is it?', 1, "It is I."), LabelledPair("Where?", 0, "Here")]),
    "rte.tsv": ("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n", [LabelledPair("a", 0, "b")]),
    "mrpc.tsv": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\t3\ta\tb\n", [LabelledPair("a", 1, "b")]),
    "qqp.tsv": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta\tb\t0\n", [LabelledPair("a", 0, "b")]),
    "sst.tsv": ("sentence\tlabel\r\na\t1\r\n", [Labelled("a", 1)]),
    "own.csv": ('text,label\n"a, ""b""\nc",1\nd,0\n', [Labelled('a, "b"\nc', 1), Labelled("d", 0)]),
    "own.jsonl": ('{"text": "a", "pair": "b", "label": 3}\n', [LabelledPair("a", 3, "b")]),
    "own.json": ('[{"premise": "a", "hypothesis": "b", "gold_label": "no"}]', [LabelledPair("a", 0, "b")]),
}


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("name", GLUE)
def test_every_shape_is_read(name: str, tmp_path: Path) -> None:
    content, rows = GLUE[name]
    assert read_labelled([write(tmp_path / name, content)]) == [rows]


def test_columns_may_have_other_names_or_numbers_alone(tmp_path: Path) -> None:
    named = write(tmp_path / "a.tsv", "class\tsms\tmore\nham\tHello\tx\n")
    assert read_labelled([named], fields=labelled_fields("text=sms,label=class")) == [[Labelled("Hello", 0)]]
    assert read_labelled([named], fields=labelled_fields("text=sms,pair=more,label=class")) == [
        [LabelledPair("Hello", 0, "x")]
    ]
    bare = write(tmp_path / "SMSSpamCollection", "ham\tHello\nspam\tWin, win\n")
    assert read_labelled([bare], fields=labelled_fields("label=1,text=2")) == [
        [Labelled("Hello", 0), Labelled("Win, win", 1)]
    ]


def test_two_files_number_their_names_together(tmp_path: Path) -> None:
    first = write(tmp_path / "a.tsv", "text\tlabel\na\tno\nb\tyes\n")
    second = write(tmp_path / "b.jsonl", json.dumps({"text": "c", "label": "yes"}))
    assert read_labelled([first, second])[1] == [Labelled("c", 1)]


FAULTS: dict[str, tuple[str, str, str]] = {
    "no label": ("a.tsv", "text\tmark\nx\t1\n", "a.tsv, line 1: must have `label` or .*; it has text, mark. Correct"),
    "no text": (
        "a.csv",
        "words,label\nx,1\n",
        "a.csv, line 1: must have `text`, `sentence`, or .*; it has words, label",
    ),
    "a cell is missing": ("a.tsv", "text\tlabel\nx\t1\ny\n", "line 3: must have 2 columns, as line 1 has; it has 1"),
    "a cell too many": (
        "a.csv",
        'text,label\n"x\ny",1\nz,1,2\n',
        "line 4: must have 2 columns, as line 1 has; it has 3",
    ),
    "a quote left open": ("a.csv", 'text,label\nx,1\n"y,1\n', "line 3: is no line of a CSV file"),
    "a name twice": ("a.tsv", "text\ttext\nx\t1\n", "line 1: must name every column once"),
    "names only": ("a.tsv", "text\tlabel\n", "line 1: must be followed by a row"),
    "a blank text": ("a.tsv", "text\tlabel\nx\t1\n \t1\n", "line 3: `text` must be a text that is not blank"),
    "no label in one row": ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "y"}', "line 2: must have `label` or"),
    "a label below 0": (
        "a.tsv",
        "text\tlabel\nx\t-1\n",
        "line 2: `label` must be a whole number from 0, or a name; got",
    ),
    "a blank label": (
        "a.tsv",
        "text\tlabel\nx\t\n",
        "line 2: `label` must be a whole number from 0, or a name; got ''",
    ),
    "a number among names": (
        "a.tsv",
        "text\tlabel\nx\tno\ny\t1\n",
        "line 3: labels must be numbers everywhere, or names",
    ),
    "nothing": ("a.tsv", " \n", "`path` must hold at least one record; .* is empty"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_line(fault: str, tmp_path: Path) -> None:
    name, content, sentence = FAULTS[fault]
    with pytest.raises(TaskError, match=sentence):
        read_labelled([write(tmp_path / name, content)])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ("text=sms", "line 1: must have `sms`; it has text, label"),
        ("text=3,label=2", "line 1: must have `3`; it has 1, 2"),
    ],
)
def test_a_column_that_is_not_there(fields: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=sentence):
        read_labelled([write(tmp_path / "a.tsv", "text\tlabel\nx\t1\n")], fields=labelled_fields(fields))


@pytest.mark.parametrize("content", ["text\tmark\nx\t1\n", "text\tlabel\nx\tno\n", ""])
def test_the_file_that_is_asked_is_blamed_by_its_name(content: str, tmp_path: Path) -> None:
    train = write(tmp_path / "a.tsv", "text\tlabel\nx\t1\n")
    with pytest.raises(TaskError, match=r"^`eval` must .*b\.tsv"):
        read_labelled([train, write(tmp_path / "b.tsv", content)])
    with pytest.raises(TaskError, match=r"^`eval` must be a readable file; .*none"):
        read_labelled([train, tmp_path / "none"])


@pytest.mark.parametrize("fields", ["pair=b", "prompt=x", "text"])
def test_fields_that_say_nothing_are_refused(fields: str) -> None:
    with pytest.raises(TaskError, match="`fields` must"):
        labelled_fields(fields)
