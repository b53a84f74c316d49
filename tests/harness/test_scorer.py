"""A harness task as the score of an attack, with a user's task file and no network."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pico_text
import pytest
import torch

import specdef
from specdef.errors import SpecdefError, TaskError
from specdef.integrations.lm_eval import evaluate_harness
from specdef.tasks.base import TaskSpec, make_task
from specdef.tasks.score import as_score

TASK = """task: colours
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"question": f"What is {n}?", "choices": ["red", "green", "dark blue"], "answer": n % 3} for n in range(12)]
    data = tmp_path / "colours.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "colours.yaml").write_text(TASK.format(data=data))
    train = [{"prompt": f"What is {n}? It is", "completion": f" {n}."} for n in range(6)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, train)))
    return tmp_path


def spec(folder: Path, metric: str = "") -> TaskSpec:
    return TaskSpec("own", str(folder / "train.jsonl"), scorer=f"lm-eval:{folder / 'colours.yaml'}{metric}")


def test_the_share_and_its_error_are_the_harnesss(folder: Path) -> None:
    model = pico_text.write_model(folder / "model")
    reported = evaluate_harness(model, ["colours"], include_path=folder)
    for metric in ("acc", "acc_norm"):
        task = make_task(spec(folder, "" if metric == "acc" else ":acc_norm"))
        assert (task.chance, task.target) == (pytest.approx(1 / 3), 0.6)
        found = as_score(task.metric(*pico_text.load(model)))
        assert found.value == reported[f"colours/{metric}"]
        assert found.error == pytest.approx(reported[f"colours/{metric}_stderr"])


def test_an_attack_is_scored_by_it_and_trains_as_without_it(folder: Path) -> None:
    model = pico_text.write_model(folder / "model")
    recipe = specdef.Recipe(lr=1e-3, steps=3, eval_every=1, batch_size=2)
    (folder / "eval.jsonl").write_text((folder / "train.jsonl").read_text())
    asked = TaskSpec("own", str(folder / "train.jsonl"), eval=str(folder / "eval.jsonl"), scorer="exact")
    cells = [
        specdef.attack(model, task=one, recipe=recipe, utility="perplexity", threads=1, device="cpu")
        for one in (spec(folder), asked)
    ]
    losses = [[point.loss for point in cell.result.evaluations] for cell in cells]
    assert losses[0] == losses[1], "asking the harness must not move the random state of training"
    assert cells[0].result.evaluations[0].by_group is not None
    assert cells[0].measured.scorer == spec(folder).scorer


def test_a_model_that_is_not_finite_scores_nothing(folder: Path) -> None:
    model, tokenizer = pico_text.load(pico_text.write_model(folder / "model"))
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    assert as_score(make_task(spec(folder)).metric(model, tokenizer)).value == 0


def test_other_questions_are_another_task_and_another_place_is_not(folder: Path, tmp_path: Path) -> None:
    first = make_task(spec(folder)).fingerprint()
    data = folder / "moved.jsonl"
    (folder / "colours.jsonl").rename(data)
    (folder / "colours.yaml").write_text(TASK.format(data=data))
    assert make_task(spec(folder)).fingerprint() == first
    data.write_text(data.read_text().replace("What is 3?", "What is 33?"))
    assert make_task(spec(folder)).fingerprint() != first


def test_what_cannot_be_scored_is_said(folder: Path) -> None:
    with pytest.raises(
        TaskError,
        match="a metric of colours that is a mean over its questions: acc, acc_norm; got f1",
    ):
        make_task(spec(folder, ":f1"))
    text = (folder / "colours.yaml").read_text()
    (folder / "colours.yaml").write_text(text.replace("acc_norm", "mcc"))
    with pytest.raises(TaskError, match="that is a mean over its questions: acc; got mcc"):
        make_task(spec(folder, ":mcc"))
    (folder / "colours.yaml").write_text(text.replace("acc_norm", "mcc").replace("  - metric: acc\n", ""))
    with pytest.raises(TaskError, match="that is a mean over its questions: it has none; none was named"):
        make_task(spec(folder))
    (folder / "colours.yaml").write_text(text)
    with pytest.raises(TaskError, match=r"`scorer` must be names of harness tasks; 'colouurs' is none"):
        make_task(TaskSpec("own", str(folder / "train.jsonl"), scorer="lm-eval:colouurs"))
    (folder / "colours.jsonl").unlink()
    with pytest.raises(SpecdefError, match=r"`scorer` must be one task on local files; .*colours.yaml is not"):
        make_task(spec(folder))
