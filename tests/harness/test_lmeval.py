"""Harness tasks on a model folder, with a user's task file and no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pico_text
import pytest

from specdef.errors import SpecdefError
from specdef.integrations.lm_eval import evaluate_harness
from specdef.tasks.kinds.mcqa import mcqa
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
"""


@pytest.fixture
def task_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    colours = ["red", "green", "dark blue", "grey"]
    records = [{"question": f"What is {n}?", "choices": colours, "answer": n % 4} for n in range(12)]
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = folder / "colours.jsonl"
    data.write_text("\n".join(map(json.dumps, records)))
    (folder / "colours.yaml").write_text(TASK.format(data=data))
    return folder


def test_a_users_task_is_run(task_folder: Path, tmp_path: Path) -> None:
    model = pico_text.write_model(tmp_path / "model")
    found = evaluate_harness(model, ["colours"], include_path=task_folder)
    assert {"colours/acc", "colours/acc_stderr"} <= set(found)
    assert 0 < found["colours/acc"] < 1
    assert found["colours/acc"] * 12 == pytest.approx(round(found["colours/acc"] * 12))
    assert evaluate_harness(model, ["colours"], include_path=task_folder, limit=1)["colours/acc"] in (0.0, 1.0)


@pytest.mark.parametrize(
    ("tasks", "arguments", "fault"),
    [
        ([], {}, "`tasks` must be a list of harness tasks with at least one name"),
        ("colours", {}, "`tasks` must be a list of harness tasks with at least one name; got 'colours'"),
        (["colour"], {}, r"`tasks` must be names of harness tasks; 'colour' is none. Did you mean .*'colours'"),
        (["colours"], {"limit": 0}, "`limit` must be at least 1, or none; got 0"),
        (["colours"], {"include_path": "absent"}, "`include_path` must be a folder of task files; absent is none"),
    ],
)
def test_unusable_arguments_are_refused(
    task_folder: Path, tmp_path: Path, tasks: Any, arguments: dict[str, Any], fault: str
) -> None:
    model = pico_text.write_model(tmp_path / "model")
    with pytest.raises(SpecdefError, match=fault):
        evaluate_harness(model, tasks, **{"include_path": task_folder, **arguments})


def test_a_task_without_its_data_is_named(task_folder: Path, tmp_path: Path) -> None:
    model = pico_text.write_model(tmp_path / "model")
    (task_folder / "colours.jsonl").unlink()
    with pytest.raises(SpecdefError, match=r"`tasks` must run on local files; colours did not"):
        evaluate_harness(model, ["colours"], include_path=task_folder)


def test_the_harness_agrees_with_mcqa_on_choices_of_one_length(task_folder: Path, tmp_path: Path) -> None:
    records = [
        {"question": f"What is {n}?", "choices": ["red", "tan", "sky", "jet"], "answer": n % 4} for n in range(12)
    ]
    data = task_folder / "colours.jsonl"
    data.write_text("\n".join(map(json.dumps, records)))
    folder = pico_text.write_model(tmp_path / "model")
    score = as_score(mcqa(data, split="none").metric(*pico_text.load(folder))).value
    assert evaluate_harness(folder, ["colours"], include_path=task_folder)["colours/acc"] == pytest.approx(score)
