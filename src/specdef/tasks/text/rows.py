"""A user's rows, whatever their shape: plain text, prompts, chat, Alpaca, questions with choices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdef.errors import TaskError
from specdef.models.samples import Chat, Sample
from specdef.tasks.text.questions import question_record
from specdef.tasks.text.records import Record, RecordError, RecordFile, read_records, short, text_field
from specdef.tasks.text.scoring import Question

SHAPES = "text; prompt and completion; messages; instruction and output; or question, choices and answer"


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        sample: what is trained on or continued.
        question: with its choices, where the row has them.
        pattern: regular expression of what counts as a right continuation, where the row has one.
    """

    sample: Sample | Chat
    question: Question | None = None
    pattern: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether it is plain text, with nothing to be asked."""
        return isinstance(self.sample, Sample) and not self.sample.prompt


def read_rows(path: Path | str, *, fields: Mapping[str, str] | None = None, argument: str = "train") -> list[Row]:
    """The rows of a file or folder.

    A file whose name ends in ``.txt`` is plain text, a row a paragraph. A folder is one that `datasets` saved. Any
    other file is a JSON list of objects, or has one object per line; the names in an object decide what it is:

    - ``text``: plain text;
    - ``prompt`` and ``completion``: text to continue;
    - ``messages``: a chat, whose last message is the assistant's, as lists of ``role`` and ``content``;
    - ``instruction``, ``input`` (may be missing) and ``output``: Alpaca's form, in Alpaca's words;
    - ``question``, ``choices`` and ``answer`` or ``answerKey``: WMDP's and ARC's form.

    A row may have ``pattern`` too.

    Args:
        path: the file or folder.
        fields: name above -> what the file calls it.
        argument: what the user gave the path as.

    Raises:
        TaskError: it cannot be read, or a row fits none of these; the line is named.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _from_folder(path).parse(lambda record: _row(record, fields or {}))
        if path.suffix.lower() == ".txt":
            return _from_text(path)
        return read_records(path).parse(lambda record: _row(record, fields or {}))
    except TaskError as error:
        raise TaskError(str(error).replace("`path`", f"`{argument}`", 1)) from error


def parse_fields(text: str | None, names: Sequence[str] | None = None) -> dict[str, str]:
    """Read ``prompt=frage,completion=antwort``.

    Args:
        text: what the user typed.
        names: what may be mapped; those of `read_rows` when None.

    Raises:
        TaskError: not of that form.

    Example:
        >>> parse_fields("prompt=q, completion=a"), parse_fields(None)
        ({'prompt': 'q', 'completion': 'a'}, {})
    """
    found: dict[str, str] = {}
    for part in filter(None, (text or "").split(",")):
        name, equals, given = (piece.strip() for piece in part.partition("="))
        if not (name and equals and given) or name in found:
            raise TaskError(f"`fields` must be like prompt=q,completion=a, each name once; got {text!r}.")
        found[name] = given
    known = _NAMES if names is None else names
    unknown = [name for name in found if name not in known]
    if unknown:
        raise TaskError(f"`fields` must map any of {', '.join(known)}; got {unknown[0]!r}.")
    return found


_NAMES = (
    *("text", "prompt", "completion", "messages", "instruction", "input", "output"),
    *("question", "choices", "answer", "pattern"),
)


def _row(record: Mapping[str, Any], names: Mapping[str, str]) -> Row:
    fields = {name: value for name, value in record.items() if name not in names.values()}
    fields |= {name: record[given] for name, given in names.items() if given in record}
    pattern = _pattern(fields)
    if "messages" in fields:
        return Row(_chat(fields["messages"]), pattern=pattern)
    if "choices" in fields:
        question = question_record(fields)
        return Row(Sample(question.prompt, question.choices[question.answer]), question, pattern)
    if "instruction" in fields:
        return Row(_alpaca(fields), pattern=pattern)
    if "prompt" in fields:
        if not isinstance(fields["prompt"], str):
            raise RecordError(f"`prompt` must be a text; got {short(fields['prompt'])}")
        return Row(Sample(fields["prompt"], text_field(fields, "completion")), pattern=pattern)
    if "text" in fields:
        return Row(Sample("", text_field(fields, "text")), pattern=pattern)
    raise RecordError(f"must have {SHAPES}; it has {', '.join(map(str, record)) or 'nothing'}")


def _pattern(fields: Mapping[str, Any]) -> str | None:
    if "pattern" not in fields:
        return None
    pattern = text_field(dict(fields), "pattern")
    try:
        re.compile(pattern)
    except re.error as error:
        raise RecordError(f"`pattern` must be a regular expression; {short(pattern)} is none ({error})") from None
    return pattern


def _chat(messages: Any) -> Chat:
    if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
        raise RecordError(f"`messages` must be a list of objects; got {short(messages)}")
    turns = tuple((text_field(turn, "role"), text_field(turn, "content")) for turn in messages)
    if len(turns) < 2 or turns[-1][0] != "assistant":
        raise RecordError("`messages` must have two turns or more, the last of them the assistant's")
    return Chat(turns[:-1], turns[-1][1])


def _alpaca(fields: Mapping[str, Any]) -> Sample:
    given = dict(fields)
    instruction, output = text_field(given, "instruction"), text_field(given, "output")
    if given.get("input") in (None, ""):
        head = (
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        )
        return Sample(f"{head}\n\n### Instruction:\n{instruction}\n\n### Response:\n", output)
    head = (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request."
    )
    more = text_field(given, "input")
    return Sample(f"{head}\n\n### Instruction:\n{instruction}\n\n### Input:\n{more}\n\n### Response:\n", output)


def _from_text(path: Path) -> list[Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TaskError(f"`path` must be a readable file; {path} is not ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise TaskError(f"`path` must be UTF-8 text; {path} is not, at line {line}. Convert it.") from error
    rows = [Row(Sample("", part.strip())) for part in re.split(r"\n\s*\n", text) if part.strip()]
    if not rows:
        raise TaskError(f"`path` must hold some text; {path} is empty.")
    return rows


def _from_folder(path: Path) -> RecordFile:
    from specdef.tasks.text.saved_data import saved_rows

    records = tuple(Record(f"row {number}", row) for number, row in enumerate(saved_rows(path), 1))
    return RecordFile(path, records, "")
