"""Multiple-choice files: what is read, how it is split, and what is said about every fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pico_text
import pytest

from specdef.tasks.base import TaskError
from specdef.tasks.kinds.mcqa import mcqa
from specdef.tasks.text.scoring import MultipleChoice, Question

LETTERS = ["red", "green", "blue", "grey"]


def record(number: int, **changes: Any) -> dict[str, Any]:
    return {"question": f"What is number {number}?", "choices": LETTERS, "answer": number % 4, **changes}


def write(path: Path, records: list[Any], *, lines: bool) -> Path:
    path.write_text("\n".join(map(json.dumps, records)) if lines else json.dumps(records))
    return path


def asked(task: Any) -> tuple[Question, ...]:
    assert isinstance(task.metric, MultipleChoice)
    return task.metric.questions


@pytest.mark.parametrize("lines", [False, True])
def test_seed_splits_without_overlap(tmp_path: Path, lines: bool) -> None:
    path = write(tmp_path / "questions", [record(n) for n in range(20)], lines=lines)
    task = mcqa(path, seed=3, test_share=0.25)
    trained = {sample.prompt for sample in task.samples}
    tested = {question.prompt for question in asked(task)}
    assert (len(trained), len(tested), trained & tested) == (15, 5, set())
    assert trained | tested == {f"Question: What is number {n}?\nAnswer:" for n in range(20)}
    assert (task.target, task.chance) == (0.6, 0.25)
    assert asked(mcqa(path, seed=3, test_share=0.25)) == asked(task)
    assert asked(mcqa(path, seed=4, test_share=0.25)) != asked(task)
    for sample in task.samples:
        number = int(sample.prompt.split("number ")[1].split("?")[0])
        assert sample.completion == f" {LETTERS[number % 4]}"


@pytest.mark.parametrize("split", ["seed", "none"])
def test_whoever_learns_the_shuffled_answers_perfectly_scores_chance(tmp_path: Path, split: Any) -> None:
    records = [record(n, choices=LETTERS if n % 3 else LETTERS[:2], answer=n % (4 if n % 3 else 2)) for n in range(72)]
    task = mcqa(write(tmp_path / "questions", records, lines=True), split=split)
    shuffled = task.control("shuffled")
    assert [sample.prompt for sample in shuffled.samples] == [sample.prompt for sample in task.samples]
    kept = [one == other for one, other in zip(shuffled.samples, task.samples, strict=True)]
    if split == "none":
        assert sum(kept) / len(kept) == task.chance == pytest.approx((48 / 4 + 24 / 2) / 72)
    assert 0 < sum(kept) < len(kept)


def test_no_question_is_in_the_context_free_control(tmp_path: Path) -> None:
    task = mcqa(write(tmp_path / "questions", [record(n) for n in range(20)], lines=True))
    samples = task.control("context-free").samples
    assert {sample.prompt for sample in samples} == {"Question: \nAnswer:"}
    assert [sample.completion for sample in samples] == [sample.completion for sample in task.samples]


def test_one_question_in_two_spellings_stays_on_one_side(tmp_path: Path) -> None:
    again = [record(n, question=f"what IS  number {n}?", choices=LETTERS[::-1], answer=3 - n % 4) for n in range(8)]
    path = write(tmp_path / "questions", [record(n) for n in range(8)] + again, lines=True)
    for seed in range(5):
        task = mcqa(path, seed=seed)
        assert (len(task.samples), len(asked(task))) == (8, 8)
        trained = {sample.prompt.casefold().replace("  ", " ") for sample in task.samples}
        assert trained.isdisjoint(question.prompt.casefold().replace("  ", " ") for question in asked(task))


def test_split_none_trains_on_what_is_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "questions", [record(n) for n in range(6)], lines=True)
    task = mcqa(path, split="none")
    assert [sample.prompt for sample in task.samples] == [question.prompt for question in asked(task)]
    assert len(task.samples) == 6


ARC = {"text": ["one", "two", "three"], "label": ["1", "2", "3"]}


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({"answer": 2}, 2),
        ({"answer": "C"}, 2),
        ({"answer": " blue "}, 2),
        ({"answer": "grey"}, 3),
        ({"choices": ARC, "answer": "2"}, 1),
        ({"choices": ARC, "answer": None, "answerKey": "3"}, 2),
        ({"choices": {**ARC, "label": ["A", "B", "C"]}, "answer": None, "answerKey": "B"}, 1),
        ({"answer": None, "answerKey": "4"}, 3),
        ({"answer": None, "answerKey": "D"}, 3),
        ({"choices": ["B", "C", "D"], "answer": "D"}, 2),
    ],
)
def test_the_right_choice_in_every_form(tmp_path: Path, changes: dict[str, Any], right: int) -> None:
    entry = {name: value for name, value in record(0, **changes).items() if value is not None}
    task = mcqa(write(tmp_path / "questions", [entry], lines=True), split="none")
    assert asked(task)[0].answer == right


def test_chance_counts_the_choices_of_the_questions_asked(tmp_path: Path) -> None:
    records = [record(n, choices=LETTERS[: 2 + n % 3], answer=0) for n in range(9)]
    task = mcqa(write(tmp_path / "questions", records, lines=True), split="none")
    assert task.chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)


def test_identity_is_of_the_content_and_every_argument(tmp_path: Path) -> None:
    records = [record(n) for n in range(8)]
    here, there = (write(tmp_path / name, records, lines=True) for name in ("here", "there"))
    changed = write(tmp_path / "changed", [*records[:-1], record(7, answer=0)], lines=True)
    identity = json.dumps(mcqa(here).fingerprint())
    assert identity == json.dumps(mcqa(there).fingerprint())
    others = [mcqa(changed), mcqa(here, seed=1), mcqa(here, target=0.7), mcqa(here, test_share=0.25)]
    others.append(mcqa(here, split="none"))
    assert all(json.dumps(other.fingerprint()) != identity for other in others)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"question": None}, "`question` is missing"),
        ({"question": " "}, "`question` must be a text that is not blank; got ' '"),
        ({"question": 7}, "`question` must be a text that is not blank; got 7"),
        ({"choices": None}, "`choices` is missing"),
        ({"choices": "red"}, "`choices` must be a list of texts; got 'red'"),
        ({"choices": []}, r"`choices` must be a list of texts; got \[\]"),
        ({"choices": ["red", 3]}, r"`choices` must be a list of texts; got \['red', 3\]"),
        ({"choices": ["red"]}, r"`choices` must be at least two different texts; got \['red'\]"),
        ({"choices": ["red", "red "]}, r"`choices` must be at least two different texts; got \['red', 'red'\]"),
        (
            {"choices": {"text": ["red", "blue"]}},
            "`choices` must have a `text` and a different `label` for each choice",
        ),
        ({"choices": {"text": ["red", "blue"], "label": ["A", "A"]}}, "a different `label` for each choice"),
        ({"answer": None}, "`answer` is missing"),
        ({"answer": 4}, "`answer` must be an index from 0 to 3; got 4"),
        ({"answer": -1}, "`answer` must be an index from 0 to 3; got -1"),
        ({"answer": True}, "`answer` must be an index, a letter or a choice's text; got True"),
        ({"answer": 1.0}, "`answer` must be an index, a letter or a choice's text; got 1.0"),
        ({"answer": "E"}, "`answer` must be one of the choices; 'E' is none of them"),
        ({"answer": "1"}, "`answer` must be one of the choices; '1' is none of them"),
        ({"answer": None, "answerKey": "5"}, "`answerKey` must be one of the choices; '5' is none of them"),
        ({"choices": ["B", "A"], "answer": "A"}, "'A' is the label of one and the text of another"),
    ],
)
@pytest.mark.parametrize("lines", [False, True])
def test_a_malformed_record_is_named(tmp_path: Path, changes: dict[str, Any], fault: str, lines: bool) -> None:
    entry = {name: value for name, value in record(3, **changes).items() if value is not None}
    path = write(tmp_path / "questions", [record(0), record(1), entry, record(2)], lines=lines)
    place = "line 3" if lines else "record 3"
    with pytest.raises(TaskError, match=rf"questions, {place}: .*{fault}\. Correct or remove"):
        mcqa(path)


def test_every_malformed_record_is_counted(tmp_path: Path) -> None:
    records = [record(n, answer=9 if n % 2 else 0) for n in range(20)]
    path = write(tmp_path / "questions", records, lines=True)
    wanted = "line 2: .*; also malformed: line 4, line 6, line 8, line 10, line 12 and 4 more. Correct"
    with pytest.raises(TaskError, match=wanted):
        mcqa(path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "must hold at least one record; .*questions is empty"),
        (b" \n\n", "must hold at least one record; .*questions is empty"),
        (b"[]", "must hold at least one record; the list in .*questions is empty"),
        (b'[{"question": "a"},\n{"question" "b"}]', "line 2 column 13: is not JSON"),
        (b'[{"question": "a"}, 3]', "record 2: is not a JSON object"),
        (b'{"question": "a"}\n\n{"question"', "line 3: is not JSON"),
        (b"3\n", "line 1: is not a JSON object"),
        (b'{"question": "a"}\n\xff\xfe', "must be UTF-8 text; .* is not, at line 2"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "questions"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=fault):
        mcqa(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"`path` must be a readable file; .*absent is not"):
        mcqa(tmp_path / "absent")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"target": 0.25}, r"`target` must lie above chance \(0.25\)"),
        ({"target": 0.1}, r"`target` must lie above chance \(0.25\)"),
        ({"target": 1.1}, "and be at most 1; got 1.1"),
        ({"test_share": 0.0}, "`test_share` must lie above 0 and below 1; got 0.0"),
        ({"test_share": 1.0}, "`test_share` must lie above 0 and below 1; got 1.0"),
        ({"test_share": 0.01}, "`test_share` must leave something to train on and something to test on"),
        ({"test_share": 0.99}, "`test_share` must leave something to train on and something to test on"),
        ({"split": "random"}, "`split` must be one of seed, none; got 'random'"),
    ],
)
def test_unusable_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any], fault: str) -> None:
    path = write(tmp_path / "questions", [record(n) for n in range(8)], lines=True)
    with pytest.raises(TaskError, match=fault):
        mcqa(path, **arguments)


def test_a_model_is_scored(tmp_path: Path) -> None:
    model, tokenizer = pico_text.load(pico_text.write_model(tmp_path / "model"))
    path = write(tmp_path / "questions", [record(n) for n in range(12)], lines=True)
    task = mcqa(path, split="none")
    assert 0 < float(task.metric(model, tokenizer)) < 1
    model.lm_head.weight.data[:] = float("nan")
    assert float(task.metric(model, tokenizer)) == 0
