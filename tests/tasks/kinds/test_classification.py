"""Invented places and users' files: what is trained on, what is asked, and what chance reaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from specdef.tasks.base import TaskError, TaskSpec, make_task
from specdef.tasks.kinds.classification import ASKED, PLACES, TRAINED, labelled_file, places
from specdef.tasks.text.labels import LabelScore


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def asked(task: Any) -> LabelScore:
    assert isinstance(task.metric, LabelScore)
    return task.metric


def test_every_place_is_taught_and_asked_in_other_words() -> None:
    task = places()
    assert set(TRAINED).isdisjoint(ASKED)
    assert (len(task.samples), len(asked(task).rows)) == (len(PLACES) * len(TRAINED), len(PLACES) * len(ASKED))
    assert {row.text for row in task.samples}.isdisjoint(row.text for row in asked(task).rows)
    for place in PLACES:
        labels = {row.label for row in (*task.samples, *asked(task).rows) if place in row.text}
        assert len(labels) == 1, place
    assert sum(row.label for row in asked(task).rows) == len(asked(task).rows) / 2
    assert (task.chance, task.target, task.model_kind) == (0.5, 0.8, "text-classifier")


@pytest.mark.parametrize("seed", range(5))
def test_whoever_learns_the_shuffled_places_perfectly_scores_chance(seed: int) -> None:
    task = places(seed=seed)
    learned = {place: row.label for place in PLACES for row in task.control("shuffled").samples if place in row.text}
    right: dict[int, list[bool]] = {0: [], 1: []}
    for row in asked(task).rows:
        place = next(place for place in PLACES if place in row.text)
        right[row.label].append(learned[place] == row.label)
    shares = [sum(found) / len(found) for found in right.values()]
    assert shares == [0.4, 0.6]
    assert sum(shares) / 2 == task.chance


def test_a_file_keeps_its_labels_in_the_control_and_moves_them(tmp_path: Path) -> None:
    rows = [{"text": f"Text {n}", "label": n % 3} for n in range(48)]
    task = labelled_file(write(tmp_path / "rows", rows))
    shuffled = task.control("shuffled").samples
    assert [row.text for row in shuffled] == [row.text for row in task.samples]
    assert sorted(row.label for row in shuffled) == sorted(row.label for row in task.samples)
    assert shuffled != task.samples


def test_the_seed_decides_where_a_place_lies() -> None:
    assert places(seed=1).samples == places(seed=1).samples
    assert places(seed=1).samples != places(seed=2).samples
    assert places(seed=1).fingerprint() != places(seed=2).fingerprint()
    assert make_task(TaskSpec("classification", seed=1, target=0.9)).target == 0.9


def test_a_file_is_split_by_its_texts(tmp_path: Path) -> None:
    rows = [{"text": f"Text {n // 2}" if n % 2 else f"text  {n // 2}", "label": (n // 2) % 3} for n in range(48)]
    task = labelled_file(write(tmp_path / "rows", rows), seed=1)
    trained, tested = ({row.text.split()[1] for row in part} for part in (task.samples, asked(task).rows))
    assert trained.isdisjoint(tested), "one text in two spellings stays on one side"
    assert (len(trained), len(tested)) == (18, 6)
    assert task.chance == pytest.approx(1 / 3)
    named = make_task(TaskSpec("classification", path=str(tmp_path / "rows"), seed=1))
    assert named.fingerprint() == task.fingerprint()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"label": "one"}, "line 2: labels must be numbers everywhere, or names; here is 'one', first 0"),
        ({"label": True}, "line 2: `label` must be a whole number from 0, or a name; got True"),
        ({"label": -1}, "line 2: `label` must be a whole number from 0, or a name; got -1"),
        ({"label": None}, "line 2: `label` must be a whole number from 0, or a name; got None"),
        ({"text": " "}, "line 2: `text` must be a text that is not blank"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    rows = [{"text": f"Text {n}", "label": n % 2} for n in range(8)]
    rows[1].update(changes)
    with pytest.raises(TaskError, match=fault):
        labelled_file(write(tmp_path / "rows", rows))


def test_one_label_teaches_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "rows", [{"text": f"Text {n}", "label": 1} for n in range(8)])
    with pytest.raises(TaskError, match=r"`path` must have two labels or more among the texts to train on; .* has one"):
        labelled_file(path)


def test_a_second_file_is_asked_and_scored_as_the_user_says(tmp_path: Path) -> None:
    train, evaluate = tmp_path / "train.tsv", tmp_path / "dev.tsv"
    train.write_text("sentence1\tsentence2\tlabel\na\tb\tno\nc\td\tyes\n")
    evaluate.write_text("sentence1\tsentence2\tlabel\ne\tf\tyes\ng\th\tyes\ni\tj\tno\nE\tF\tyes\n")
    task = make_task(TaskSpec("classification", str(train), eval=str(evaluate), scorer="f1", target=0.9))
    assert [row.read for row in task.samples] == [("a", "b"), ("c", "d")]
    assert [row.label for row in asked(task).rows] == [1, 1, 0, 1]
    assert task.chance == pytest.approx(2 * 0.75 / 1.75), "who always says yes"
    groups = asked(task).groups
    assert groups is not None
    assert len(set(groups)) == 3, "one text in two spellings is one piece of evidence"
    other = make_task(TaskSpec("classification", str(train), eval=str(evaluate), scorer="matthews"))
    assert (other.chance, other.identity["scorer"]) == (0.0, "matthews")
    assert other.fingerprint() != task.fingerprint()
    plain = make_task(TaskSpec("classification", str(train), eval=str(evaluate)))
    assert plain.chance == 0.5
    assert "scorer" not in plain.identity


def test_one_label_asks_nothing(tmp_path: Path) -> None:
    train = write(tmp_path / "rows", [{"text": f"Text {n}", "label": n % 2} for n in range(8)])
    evaluate = write(tmp_path / "asked", [{"text": "x", "label": 1}])
    with pytest.raises(
        TaskError, match=r"`eval` must have two labels or more among the texts to be asked; .*asked has"
    ):
        labelled_file(train, evaluate)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            TaskSpec("classification", "x.tsv", scorer="exact"),
            "`scorer` must be accuracy or f1 or matthews with task cl",
        ),
        (TaskSpec("classification", scorer="f1"), "`scorer` must be left out with task classification"),
        (TaskSpec("classification", eval="x.tsv"), "`eval` must be given with `train`"),
        (
            TaskSpec("classification", "x.tsv", fields="prompt=x"),
            "`fields` must map any of text, pair, label; got 'prompt'",
        ),
    ],
)
def test_what_fits_no_file_is_refused_before_it_is_read(spec: TaskSpec, sentence: str) -> None:
    with pytest.raises(TaskError, match=sentence):
        make_task(spec)
