"""A user's labelled texts: tables, JSON lines, and the columns that GLUE's files have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdef.errors import TaskError
from specdef.models.samples import Labelled, LabelledPair
from specdef.tasks.text.records import RecordError, RecordFile, malformed, read_records, short, split_groups, text_field
from specdef.tasks.text.rows import parse_fields
from specdef.tasks.text.tables import read_table

ARGUMENTS = ("path", "eval")
"""What the user gives the files as."""
FIELDS = ("text", "pair", "label")
"""What `fields` may map."""
PAIRS = (
    ("text", "pair"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("#1 String", "#2 String"),
    ("question", "sentence"),
    ("question", "passage"),
    ("premise", "hypothesis"),
)
TEXTS = ("text", "sentence")
LABELS = ("label", "gold_label", "is_duplicate", "Quality")


@dataclass(frozen=True)
class _Columns:
    """What a file calls its texts and its label."""

    text: str
    pair: str | None
    label: str


@dataclass(frozen=True)
class _Row:
    texts: tuple[str, ...]
    label: int | str

    def numbered(self, labels: Mapping[str, int]) -> Labelled:
        label = self.label if isinstance(self.label, int) else labels[self.label]
        return (
            Labelled(self.texts[0], label)
            if len(self.texts) == 1
            else LabelledPair(self.texts[0], label, self.texts[1])
        )


def read_labelled(paths: Sequence[Path | str], *, fields: Mapping[str, str] | None = None) -> list[list[Labelled]]:
    """The labelled texts of some files, whose labels are the same.

    A file whose name ends in ``.tsv`` or ``.csv`` is a table with a line of names; where `fields` gives columns by
    their numbers, it has no such line, and is separated by tabs unless it is called ``.csv``. Any other file is a JSON
    list of objects, or has one object a line.

    Texts are ``text`` or ``sentence``, or a pair: ``text`` and ``pair``, ``sentence1`` and ``sentence2``,
    ``question1`` and ``question2``, ``#1 String`` and ``#2 String``, ``question`` and ``sentence`` or ``passage``,
    ``premise`` and ``hypothesis``. Labels are ``label``, ``gold_label``, ``is_duplicate`` or ``Quality``: whole
    numbers from 0, or names, which are numbered in the order of the alphabet.

    Args:
        paths: the file that is trained on and, where there is one, the file that is asked.
        fields: any of text, pair, label -> what the files call it.

    Raises:
        TaskError: a file cannot be read, or lacks a column, or a row is malformed; the line is named.
    """
    read: list[tuple[RecordFile, list[_Row]]] = []
    for path, argument in zip(paths, ARGUMENTS, strict=False):
        with _argument(argument):
            file = _read(Path(path), fields or {})
            read.append((file, file.parse(_parser(file, fields or {}))))
            _refuse_mixed(read)
    named = {row.label for _, rows in read for row in rows if isinstance(row.label, str)}
    labels = {name: number for number, name in enumerate(sorted(named))}
    return [[row.numbered(labels) for row in rows] for _, rows in read]


def labelled_fields(text: str | None) -> dict[str, str]:
    """Read ``text=sms,label=class``, or ``label=1,text=2`` for a table without a line of names.

    Raises:
        TaskError: not of that form; or a pair without its first text.

    Example:
        >>> labelled_fields("label=1,text=2")
        {'label': '1', 'text': '2'}
    """
    found = parse_fields(text, FIELDS)
    if "pair" in found and "text" not in found:
        raise TaskError(f"`fields` must map text where it maps pair; got {text!r}.")
    return found


def same_text(row: Labelled) -> str:
    """The same for texts that differ in case and spaces alone."""
    texts = (row.read,) if isinstance(row.read, str) else row.read
    return "\n".join(" ".join(text.casefold().split()) for text in texts)


def _read(path: Path, fields: Mapping[str, str]) -> RecordFile:
    if _is_table(path, fields):
        return read_table(path, header=not _by_number(fields))
    return read_records(path)


def _by_number(fields: Mapping[str, str]) -> bool:
    return bool(fields) and all(name.isdecimal() for name in fields.values())


def _is_table(path: Path, fields: Mapping[str, str]) -> bool:
    return _by_number(fields) or path.suffix.lower() in (".tsv", ".csv")


def _parser(file: RecordFile, fields: Mapping[str, str]) -> Callable[[dict[str, Any]], _Row]:
    """Reads a record. A table's columns are looked for once, so that one that lacks is the first line's fault."""
    if not _is_table(file.path, fields):
        return lambda record: _row(record, _columns(record, fields))
    try:
        columns = _columns(file.records[0].fields, fields)
    except RecordError as error:
        raise malformed(file.path, [("line 1", str(error))]) from None
    return lambda record: _row(record, columns)


def _columns(record: Mapping[str, Any], fields: Mapping[str, str]) -> _Columns:
    missing = [name for name in fields.values() if name not in record]
    if missing:
        raise RecordError(f"must have `{missing[0]}`; it has {', '.join(map(str, record)) or 'nothing'}")
    label = fields.get("label") or next((name for name in LABELS if name in record), None)
    if label is None:
        raise RecordError(f"must have {' or '.join(f'`{n}`' for n in LABELS)}; it has {', '.join(map(str, record))}")
    if "text" in fields:
        return _Columns(fields["text"], fields.get("pair"), label)
    for first, second in PAIRS:
        if first in record and second in record:
            return _Columns(first, second, label)
    text = next((name for name in TEXTS if name in record), None)
    if text is None:
        pairs = ", ".join(f"`{first}` and `{second}`" for first, second in PAIRS[1:])
        raise RecordError(f"must have `text`, `sentence`, or {pairs}; it has {', '.join(map(str, record))}")
    return _Columns(text, None, label)


def _row(record: dict[str, Any], columns: _Columns) -> _Row:
    texts = [text_field(record, name) for name in (columns.text, columns.pair) if name is not None]
    label = record.get(columns.label)
    if isinstance(label, str) and label.isdecimal():
        label = int(label)
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "" or re.fullmatch(r"-\d+", str(label)):
        raise RecordError(f"`{columns.label}` must be a whole number from 0, or a name; got {short(label)}")
    return _Row(tuple(texts), label)


def read_split(
    path: Path | str,
    evaluate: Path | str | None,
    *,
    fields: Mapping[str, str] | None,
    test_share: float,
    seed: int,
) -> tuple[list[Labelled], list[Labelled]]:
    """What is trained on and what is asked: a share of the first file's texts where there is no second.

    Raises:
        TaskError: see `read_labelled`.
    """
    if evaluate is None:
        (rows,) = read_labelled([path], fields=fields)
        return split_groups(rows, same_text, share=test_share, seed=seed)
    trained, asked = read_labelled([path, evaluate], fields=fields)
    return trained, asked


def _refuse_mixed(read: Sequence[tuple[RecordFile, Sequence[_Row]]]) -> None:
    """Refuse the last file where some labels are names and some are numbers, there or in the files before it."""
    first = read[0][1][0].label
    file, rows = read[-1]
    for record, row in zip(file.records, rows, strict=True):
        if isinstance(row.label, str) != isinstance(first, str):
            fault = f"labels must be numbers everywhere, or names; here is {short(row.label)}, first {short(first)}"
            raise malformed(file.path, [(record.place, fault)])


@contextmanager
def _argument(name: str) -> Iterator[None]:
    """Blame the argument that the user gave a file as."""
    try:
        yield
    except TaskError as error:
        raise TaskError(str(error).replace("`path`", f"`{name}`", 1)) from error
