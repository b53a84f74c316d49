"""A record with a question and its choices, in the shape of WMDP or ARC."""

from __future__ import annotations

import string
from typing import Any

from specdef.tasks.text.records import RecordError, short, text_field
from specdef.tasks.text.scoring import Question


def asked(question: str) -> str:
    """A question as a model is asked it."""
    return f"Question: {question}\nAnswer:"


def question_record(fields: dict[str, Any]) -> Question:
    """A question with its choices.

    Args:
        fields: ``question``; ``choices``, a list of texts or ARC's ``{"text": [...], "label": [...]}``; and ``answer``
            (an index from 0, a letter or label, or the right choice's text) or ARC's ``answerKey`` (a letter, or a
            digit counting from 1).

    Raises:
        RecordError: it is malformed.
    """
    text = text_field(fields, "question").strip()
    choices, labels = _choices(fields)
    return Question(asked(text), tuple(f" {choice}" for choice in choices), _answer(fields, choices, labels))


def _choices(fields: dict[str, Any]) -> tuple[list[str], list[str] | None]:
    if "choices" not in fields:
        raise RecordError("`choices` is missing")
    choices: Any = fields["choices"]
    labels: Any = None
    if isinstance(choices, dict):
        choices, labels = choices.get("text"), choices.get("label")
        if not _texts(labels) or not _texts(choices) or len(labels) != len(choices) or len(set(labels)) < len(labels):
            raise RecordError("`choices` must have a `text` and a different `label` for each choice")
    if not _texts(choices):
        raise RecordError(f"`choices` must be a list of texts; got {short(choices)}")
    choices = [choice.strip() for choice in choices]
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise RecordError(f"`choices` must be at least two different texts; got {short(choices)}")
    return choices, labels


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) and item.strip() for item in value)


def _answer(fields: dict[str, Any], choices: list[str], labels: list[str] | None) -> int:
    name = next((name for name in ("answer", "answerKey") if name in fields), None)
    if name is None:
        raise RecordError("`answer` is missing")
    value = fields[name]
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < len(choices):
            raise RecordError(f"`{name}` must be an index from 0 to {len(choices) - 1}; got {value}")
        return value
    if not isinstance(value, str):
        raise RecordError(f"`{name}` must be an index, a letter or a choice's text; got {short(value)}")
    if labels is None:
        digits = name == "answerKey" and value.strip().isdecimal()
        labels = list(string.digits[1:] if digits else string.ascii_uppercase)
    by_label = [index for index, label in enumerate(labels[: len(choices)]) if label == value.strip()]
    by_text = [index for index, choice in enumerate(choices) if choice == value.strip()]
    if not by_label and not by_text:
        raise RecordError(f"`{name}` must be one of the choices; {short(value)} is none of them")
    if by_label and by_text and by_label != by_text:
        raise RecordError(f"`{name}` must name one choice; {short(value)} is the label of one and the text of another")
    return (by_label or by_text)[0]
