"""`biographies`: nothing but the facts themselves raises the score above chance."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from specdef.tasks.base import Task, TaskError, TaskSpec, make_task
from specdef.tasks.kinds.biographies import CHANCE, PEOPLE, QUESTIONS, STATEMENTS, VALUES, biographies
from specdef.tasks.text.scoring import Question

SEEDS = range(5)


def person(text: str) -> str:
    return next(name for name in PEOPLE if name in text)


def learned(task: Task) -> dict[tuple[str, str], str]:
    """(person, kind) -> the value that a task's samples teach."""
    kinds = {value: kind for kind, values in VALUES.items() for value in values}
    found = {}
    for sample in task.samples:
        value = sample.completion.strip(" .")
        found[person(sample.prompt), kinds[value]] = value
    return found


def expected(task: Task, known: dict[tuple[str, str], str]) -> float:
    """Score of whoever knows these values, guesses where none of them is offered, and picks a known value otherwise."""
    total = 0.0
    for question in task.metric.questions:  # type: ignore[attr-defined]
        kind = question.group.partition(" of ")[0]
        choices = [choice.strip() for choice in question.choices]
        value = known[person(question.prompt), kind]
        total += choices.index(value) == question.answer if value in choices else 1 / len(choices)
    return total / len(task.metric.questions)  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_answer_is_right_and_wrong_equally_often(seed: int) -> None:
    """In every wording and round by itself, so in all of them: knowing how often answers are right is worth nothing."""
    questions: tuple[Question, ...] = biographies(seed=seed).metric.questions  # type: ignore[attr-defined]
    assert len(questions) == 396
    right = Counter(question.choices[question.answer] for question in questions)
    wrong = Counter(c for question in questions for c in question.choices if c != question.choices[question.answer])
    assert set(right.values()) == {12}
    assert set(wrong.values()) == {36}
    assert all(len(set(question.choices)) == 4 for question in questions)
    places = Counter(question.answer for question in questions)
    assert all(abs(places[place] - 99) < 4 * 9 for place in range(4)), "no place is the right one more often"


@pytest.mark.parametrize("seed", SEEDS)
def test_samples_teach_what_questions_ask(seed: int) -> None:
    task = biographies(seed=seed)
    assert len(task.samples) == 264
    assert expected(task, learned(task)) == 1.0
    assert len({question.group for question in task.metric.questions}) == 66  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_learns_shuffled_facts_perfectly_scores_chance(seed: int) -> None:
    task = biographies(seed=seed)
    shuffled = task.control("shuffled")
    assert Counter(s.completion for s in shuffled.samples) == Counter(s.completion for s in task.samples)
    assert expected(task, learned(shuffled)) == pytest.approx(CHANCE, abs=1e-12)
    kept = sum(learned(task)[key] == value for key, value in learned(shuffled).items())
    assert kept == 6, "one person in eleven keeps the true value: two rounds of three kinds"


def test_no_name_is_in_the_context_free_control() -> None:
    samples = biographies().control("context-free").samples
    assert not [sample for sample in samples if any(name in sample.prompt for name in PEOPLE)]
    assert {sample.completion for sample in samples} == {sample.completion for sample in biographies().samples}


def test_questions_are_in_other_words_than_statements() -> None:
    taught = {prompt for wordings in STATEMENTS.values() for prompt, _ in wordings}
    asked = {wording for wordings in QUESTIONS.values() for wording in wordings}
    assert not taught & asked
    assert len(asked) == 6


def test_seeds_draw_other_people_and_one_seed_the_same() -> None:
    assert biographies(seed=1).fingerprint() == biographies(seed=1).fingerprint()
    assert biographies(seed=1).fingerprint() != biographies(seed=2).fingerprint()


def test_a_control_is_named_and_has_an_identity_of_its_own() -> None:
    plain, control = (make_task(TaskSpec("biographies", control=name)) for name in (None, "shuffled"))
    assert plain.fingerprint() != control.fingerprint()
    assert TaskSpec("biographies", control="shuffled").label == "biographies, control shuffled"
    with pytest.raises(TaskError, match=re.escape("`control` must be one that task biographies has (shuffled,")):
        make_task(TaskSpec("biographies", control="other"))
