"""Reading a user's table, tab- or comma-separated, so that every fault is named with its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from specdef.tasks.text.records import Record, RecordError, RecordFile, malformed, read_text


def read_table(path: Path, *, header: bool = True) -> RecordFile:
    """The rows of a table as records of texts; blank lines are passed over.

    In a file whose name ends in ``.csv`` commas separate and double quotes quote. In any other file tabs separate and
    a quote is a quote, as in GLUE's files.

    Args:
        path: the file.
        header: whether the first line names the columns; without, they are called 1, 2 and so on.

    Raises:
        TaskError: the file cannot be read or is empty, or a row has more or fewer columns than the first one.
    """
    text, digest = read_text(path)
    records: list[Record] = []
    faults: list[tuple[str, str]] = []
    names: list[str] = []
    try:
        for number, cells in _lines(path, text):
            if not names:
                names = _names(cells) if header else [str(column) for column in range(1, len(cells) + 1)]
                if header:
                    continue
            if len(cells) == len(names):
                records.append(Record(f"line {number}", dict(zip(names, cells, strict=True))))
            else:
                faults.append((f"line {number}", f"must have {len(names)} columns, as line 1 has; it has {len(cells)}"))
    except RecordError as error:
        faults = [("line 1", str(error))]
    except csv.Error as error:
        faults.append((f"line {len(records) + len(faults) + 2}", f"is no line of a CSV file ({error})"))
    if not records and not faults:
        faults = [("line 1", "must be followed by a row; it is the only line")]
    if faults:
        raise malformed(path, faults)
    return RecordFile(path, tuple(records), digest)


def _names(cells: list[str]) -> list[str]:
    if len(set(cells)) < len(cells):
        raise RecordError(f"must name every column once; it has {', '.join(cells)}")
    return cells


def _lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the line where a row ends, from 1, and the row's cells."""
    if path.suffix.lower() == ".csv":
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        for cells in reader:
            if cells:
                yield reader.line_num, cells
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.rstrip("\r").split("\t")
