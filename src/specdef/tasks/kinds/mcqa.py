"""`mcqa`: multiple-choice questions from a user's file, in the shape of WMDP or ARC."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from specdef.tasks.base import Sample, Task, TaskError, TaskKind, TaskSpec
from specdef.tasks.text.records import RecordError, read_records, short, split_groups, text_field
from specdef.tasks.text.scoring import MultipleChoice, Question

MODEL_KIND = "causal-lm"
TARGET = 0.6
Split = Literal["seed", "none"]


def mcqa(
    path: Path | str,
    *,
    seed: int = 0,
    target: float | None = None,
    test_share: float = 0.5,
    split: Split = "seed",
) -> Task:
    """Questions to learn the answers of, and questions to be asked.

    The file is a JSON list of objects, or one object per line. Each has ``question``; ``choices``, a list of texts or
    ARC's ``{"text": [...], "label": [...]}``; and ``answer`` (an index from 0, a letter or label, or the right
    choice's text) or ARC's ``answerKey`` (a letter, or a digit counting from 1).

    Args:
        path: the file.
        seed: decides which questions are asked and which are trained on.
        target: the accuracy at which the attack has reached its aim; 0.6 when None.
        test_share: share of the questions that is asked.
        split: ``seed`` trains on other questions than are asked (what is learned must carry over); ``none`` trains on
            and asks every question (relearning facts that say nothing about each other).

    Raises:
        TaskError: the file is unusable, and where; or the target is not above chance.
    """
    if split not in get_args(Split):
        raise TaskError(f"`split` must be one of {', '.join(get_args(Split))}; got {split!r}.")
    file = read_records(path)
    questions = file.parse(_question)
    if split == "seed":
        trained, asked = split_groups(questions, _same, share=test_share, seed=seed)
    else:
        trained = asked = questions
    chance = sum(1 / len(question.choices) for question in asked) / len(asked)
    shuffled = zip(trained, _shuffled(trained, seed), strict=True)
    controls = {
        "shuffled": tuple(Sample(question.prompt, question.choices[choice]) for question, choice in shuffled),
        "context-free": tuple(Sample(_asked(""), question.choices[question.answer]) for question in trained),
    }
    target = TARGET if target is None else target
    samples = tuple(Sample(question.prompt, question.choices[question.answer]) for question in trained)
    metric = MultipleChoice(tuple(asked))
    return Task("mcqa", MODEL_KIND, samples, metric, target, chance, metric.identity, controls)


def _shuffled(questions: Sequence[Question], seed: int) -> list[int]:
    """A choice for every question: of those with n choices, one in n keeps the right one, as nearly as they divide."""
    draw = random.Random(seed)
    found = [0] * len(questions)
    by_count: dict[int, list[int]] = {}
    for index, question in enumerate(questions):
        by_count.setdefault(len(question.choices), []).append(index)
    for count, indices in by_count.items():
        draw.shuffle(indices)
        for place, index in enumerate(indices):
            found[index] = (questions[index].answer + place) % count
    return found


def _asked(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _same(question: Question) -> str:
    """Two questions of one wording are the same, whatever their case, spaces and choices."""
    return " ".join(question.prompt.casefold().split())


def _question(fields: dict[str, Any]) -> Question:
    text = text_field(fields, "question").strip()
    choices, labels = _choices(fields)
    return Question(_asked(text), tuple(f" {choice}" for choice in choices), _answer(fields, choices, labels))


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


class MCQA(TaskKind):
    """`mcqa` by name."""

    name = "mcqa"
    model_kind = MODEL_KIND
    takes_file = needs_file = True

    def make(self, spec: TaskSpec) -> Task:
        """The questions of the file, split by the seed."""
        assert spec.path is not None
        return mcqa(spec.path, seed=spec.seed, target=spec.target)


KIND = MCQA()
