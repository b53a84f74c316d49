"""`mcqa`: multiple-choice questions from a user's file, in the shape of WMDP or ARC."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from specdef.tasks.base import Sample, Task, TaskError, TaskKind, TaskSpec
from specdef.tasks.text.questions import asked, question_record
from specdef.tasks.text.records import read_records, split_groups
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
    questions = file.parse(question_record)
    if split == "seed":
        trained, tested = split_groups(questions, _same, share=test_share, seed=seed)
    else:
        trained = tested = questions
    chance = sum(1 / len(question.choices) for question in tested) / len(tested)
    shuffled = zip(trained, _shuffled(trained, seed), strict=True)
    controls = {
        "shuffled": tuple(Sample(question.prompt, question.choices[choice]) for question, choice in shuffled),
        "context-free": tuple(Sample(asked(""), question.choices[question.answer]) for question in trained),
    }
    target = TARGET if target is None else target
    samples = tuple(Sample(question.prompt, question.choices[question.answer]) for question in trained)
    metric = MultipleChoice(tuple(tested))
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


def _same(question: Question) -> str:
    """Two questions of one wording are the same, whatever their case, spaces and choices."""
    return " ".join(question.prompt.casefold().split())


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
