"""What is to be forgotten and kept: read, told apart, refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pico_text
import pytest
import torch

from specdef.defences.card import CARD, RECORD
from specdef.defences.data import DataSpec, encode, named_data, read_data, token_likelihood
from specdef.defences.defend import defend
from specdef.errors import SpecdefError, TaskError
from specdef.models.samples import Sample
from specdef.tasks.base import make_task, parse_task


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


PAIRS = [{"prompt": f"The cat of person {i} is", "completion": f" number {i}"} for i in range(4)]


def test_a_tasks_own_rows_are_forgotten_where_no_file_is_named() -> None:
    found = read_data(named_data({"task": "biographies"}, seed=3))
    task = make_task(parse_task("biographies", seed=3))
    assert found.forget == task.samples
    assert found.retain is None
    assert found.task is not None
    assert found.task.fingerprint() == task.fingerprint()


def test_a_file_of_rows_and_one_of_questions(tmp_path: Path) -> None:
    forget = write(tmp_path / "f.jsonl", PAIRS)
    asked = write(tmp_path / "q.jsonl", [{"question": "Which?", "choices": ["a", "b"], "answer": 0}])
    found = read_data(named_data({"forget": forget, "eval": asked}))
    assert found.forget == tuple(Sample(str(row["prompt"]), str(row["completion"])) for row in PAIRS)
    assert found.task is not None
    assert found.task.chance == 0.5
    assert set(found.digests) == {"forget", "task"}


def test_rows_that_are_in_both_are_said(toy_model: Path, tmp_path: Path) -> None:
    forget = write(tmp_path / "f.jsonl", PAIRS)
    retain = write(tmp_path / "r.jsonl", [*PAIRS[2:], {"text": "something else"}])
    report = defend(
        "grad-diff",
        toy_model,
        tmp_path / "out",
        options={"steps": 2, "lr": 1e-6},
        data={"forget": forget, "retain": retain},
    )
    note = "2 of 4 rows to forget are among those to keep as well."
    assert report.notes == (note,)
    assert note in (tmp_path / "out" / CARD).read_text()
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["notes"] == [note]
    assert {"forget", "retain", "general data"} == set(record["data"])
    assert list(record["scores"]) == ["geometric mean probability of a token to forget"]


@pytest.mark.parametrize("kept", [PAIRS, PAIRS[:1]], ids=["identical", "among them"])
def test_nothing_to_keep_but_what_is_forgotten_is_refused(tmp_path: Path, kept: list[dict[str, object]]) -> None:
    forget = write(tmp_path / "f.jsonl", PAIRS)
    retain = write(tmp_path / "r.jsonl", kept)
    with pytest.raises(TaskError, match="`retain` must have rows that are not to be forgotten; all "):
        read_data(DataSpec(forget, retain))


def test_bad_files_are_refused_by_the_option_they_were_given_as(tmp_path: Path) -> None:
    empty, bad = tmp_path / "empty.jsonl", tmp_path / "bad.jsonl"
    empty.write_text("")
    bad.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    good = write(tmp_path / "good.jsonl", PAIRS)
    with pytest.raises(TaskError, match="`forget` must"):
        read_data(DataSpec(str(tmp_path / "none.jsonl")))
    with pytest.raises(TaskError, match=r"`forget` must .*empty\.jsonl"):
        read_data(DataSpec(str(empty)))
    with pytest.raises(TaskError, match="line 2"):
        read_data(DataSpec(str(bad)))
    with pytest.raises(TaskError, match=r"`retain` .*line 2"):
        read_data(DataSpec(good, str(bad)))
    with pytest.raises(TaskError, match="`forget` must be a file of rows to forget, or `task`"):
        read_data(DataSpec())
    with pytest.raises(TaskError, match="`eval` must be given with `forget`"):
        named_data({"eval": "q.jsonl"})
    with pytest.raises(TaskError, match="`data` must have any of forget, retain, task, eval, fields; got 'evaluate'"):
        named_data({"evaluate": "q.jsonl"})
    with pytest.raises(TaskError, match="`eval` must be left out with `task`"):
        named_data({"forget": "f.jsonl", "task": "facts", "eval": "q.jsonl"})


def test_a_method_with_data_of_its_own_takes_none(toy_model: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match="`retain` must be left out with method guard, which brings its own data"):
        defend("guard", toy_model, tmp_path / "out", data={"retain": "x"})
    with pytest.raises(TaskError, match="`forget` must be a file"):
        defend("npo", toy_model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_token_likelihood_is_of_tokens_and_not_of_rows(toy_model: Path) -> None:
    loaded = pico_text.loaded(toy_model)
    loaded.model.double()
    samples = (Sample("a", "b"), Sample("the", " long answer of many letters"), Sample("x", " y"))
    rows = loaded.kind.encode(samples, loaded)
    with torch.no_grad():
        logs = loaded.model(input_ids=rows[0], attention_mask=rows[2]).logits.log_softmax(-1)
    values = [
        float(logs[r, t - 1, rows[0][r, t]])
        for r in range(3)
        for t in range(1, rows[0].shape[1])
        if rows[1][r, t] != -100
    ]
    wanted = math.exp(sum(values) / len(values))
    assert token_likelihood(loaded.model, rows, loaded) == pytest.approx(wanted, rel=1e-12)
    assert token_likelihood(loaded.model, rows, loaded, size=1) == pytest.approx(wanted, rel=1e-12)


def test_general_text_is_kept_where_no_rows_are_named(toy_model: Path) -> None:
    loaded = pico_text.loaded(toy_model)
    general = pico_text.general(loaded)
    rows = encode(read_data(named_data({"task": "facts"})), loaded, general)
    assert rows.retain is general.retained
