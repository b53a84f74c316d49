"""Reading a user's file of records, JSON list or JSON lines, so that every fault is named with its place."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from specdef.errors import TaskError

T = TypeVar("T")
SHOWN = 5
"""Places named in one message; the rest are counted."""


@dataclass(frozen=True)
class Record:
    """One JSON object of a file; `place` says where it stands, as in ``line 7``."""

    place: str
    fields: dict[str, Any]


class RecordError(Exception):
    """A record is malformed; the message is what is wrong with it, without the place."""


@dataclass(frozen=True)
class RecordFile:
    """The records of a file, and the hash of its bytes."""

    path: Path
    records: tuple[Record, ...]
    digest: str

    def parse(self, read: Callable[[dict[str, Any]], T]) -> list[T]:
        """Every record as `read` understands it.

        Raises:
            TaskError: `read` raised RecordError; all the places are named with the first fault.
        """
        found: list[T] = []
        faults: list[tuple[str, str]] = []
        for record in self.records:
            try:
                found.append(read(record.fields))
            except RecordError as error:
                faults.append((record.place, str(error)))
        if faults:
            raise malformed(self.path, faults)
        return found


def read_records(path: Path | str) -> RecordFile:
    """Read a JSON list of objects, or one JSON object per line (blank lines are passed over).

    Raises:
        TaskError: the file cannot be read, is empty, or is not of either form; the line is named.
    """
    path = Path(path)
    text, digest = read_text(path)
    records = _from_list(path, text) if text.lstrip().startswith("[") else _from_lines(path, text)
    if not records:
        raise TaskError(f"`path` must hold at least one record; the list in {path} is empty.")
    return RecordFile(path, tuple(records), digest)


def read_text(path: Path) -> tuple[str, str]:
    """The text of a file, and the hash of its bytes.

    Raises:
        TaskError: the file cannot be read, is empty, or is no UTF-8; the line is named.
    """
    import blake3

    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise TaskError(f"`path` must be a readable file; {path} is not ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise TaskError(f"`path` must be UTF-8 text; {path} is not, at line {line}. Convert it.") from error
    if not text.strip():
        raise TaskError(f"`path` must hold at least one record; {path} is empty.")
    return text, blake3.blake3(raw).hexdigest()


def _from_lines(path: Path, text: str) -> list[Record]:
    records: list[Record] = []
    faults: list[tuple[str, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.append((f"line {number}", f"is not JSON ({getattr(error, 'msg', 'nested too deeply')})"))
            continue
        if isinstance(value, dict):
            records.append(Record(f"line {number}", value))
        else:
            faults.append((f"line {number}", "is not a JSON object"))
    if faults:
        raise malformed(path, faults)
    return records


def _from_list(path: Path, text: str) -> list[Record]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        fault = f"is not JSON ({error.msg})"
        raise malformed(path, [(f"line {error.lineno} column {error.colno}", fault)]) from error
    except (ValueError, RecursionError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else "holds a number that is too long"
        raise malformed(path, [("the list", reason)]) from error
    wrong = [(f"record {n}", "is not a JSON object") for n, v in enumerate(values, 1) if not isinstance(v, dict)]
    if wrong:
        raise malformed(path, wrong)
    return [Record(f"record {number}", value) for number, value in enumerate(values, 1)]


def malformed(path: Path, faults: Sequence[tuple[str, str]]) -> TaskError:
    """The user's sentence for faults, each with its place."""
    place, fault = faults[0]
    others = [place for place, _ in faults[1:]]
    more = ""
    if others:
        rest = len(others) - SHOWN
        more = f"; also malformed: {', '.join(others[:SHOWN])}" + (f" and {rest} more" if rest > 0 else "")
    return TaskError(f"`path` must hold well-formed records; {path}, {place}: {fault}{more}. Correct or remove them.")


def text_field(fields: dict[str, Any], name: str) -> str:
    """A field that must be a text with something in it.

    Raises:
        RecordError: it is missing, of another type, or blank.
    """
    if name not in fields:
        raise RecordError(f"`{name}` is missing")
    value = fields[name]
    if not isinstance(value, str) or not value.strip() or not _is_unicode(value):
        raise RecordError(f"`{name}` must be a text that is not blank; got {short(value)}")
    return value


def _is_unicode(text: str) -> bool:
    """Whether a text can be encoded: JSON may hold half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def short(value: object) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def split_groups(
    items: Sequence[T], key: Callable[[T], Hashable], *, share: float, seed: int
) -> tuple[list[T], list[T]]:
    """Two parts of some items by chance, items of one key on the same side.

    Args:
        items: what is split; each part keeps their order.
        key: what may not stand on both sides.
        share: of the keys in the second part.
        seed: decides which.

    Raises:
        TaskError: a share outside (0, 1), or one that leaves a part empty.
    """
    if not 0 < share < 1:
        raise TaskError(f"`test_share` must lie above 0 and below 1; got {share!r}.")
    keys = list(dict.fromkeys(map(key, items)))
    held_out = round(share * len(keys))
    if not 0 < held_out < len(keys):
        raise TaskError(
            f"`test_share` must leave something to train on and something to test on; {share:g} of {len(keys)} "
            "different records does not. Give more records or another share."
        )
    chosen = set(random.Random(seed).sample(range(len(keys)), held_out))
    tested = {key for index, key in enumerate(keys) if index in chosen}
    return [item for item in items if key(item) not in tested], [item for item in items if key(item) in tested]
