"""Tasks by name: what is refused, and the fingerprints that results were written under."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specdef.core.schema import digest
from specdef.tasks.base import TASKS, Sample, Task, TaskError, TaskSpec, make_task, parse_task

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
COMMITTED = sorted([*RESULTS.glob("certificates/*.json"), *RESULTS.glob("biographies/*/certificate.json")])
FROZEN = {
    ("facts", 0): "d31d1629157a12cf6db30b618c5f0001add46337b432b328223af0eb48bb93aa",
    ("facts", 3): "3323ee4e75de0d074f16b83c57dd95157d4c06b8590863df2e55677483ad3ed9",
    ("biographies", 0): "d39d468bb9cc5bff86683c582c059fd9c5f4a44e821f6f94dc77e78ff73b8d5a",
    ("biographies", 3): "3c7890255e039f1685863d5ee27ee53e6b4b43206dd3c12e2327c4ec2ac0eacb",
    ("guard", 0): "12f0c1c69fad811b6b6c92b45242ab4cdc2163fedc65712e8f412317738b75bf",
    ("guard", 3): "54e9fd1905ce2b13f87381b11d04f2d5cdbd132582bf541cc4dc2a6b3e2b8701",
    ("unlearned", 0): "5dfc2386fffce7a546282e79b9fedf94e629bfcd92183b17a8ee1200e37c6e49",
    ("unlearned", 3): "68dd761f0e36d80cbb6b3df78db574351cbf200d0df3f424791d0956de3d9acd",
}
"""Cells already computed are found again under these only."""


@pytest.mark.parametrize(("name", "seed"), FROZEN)
def test_fingerprints_are_those_results_were_written_under(name: str, seed: int) -> None:
    assert digest(make_task(TaskSpec(name, seed=seed)).fingerprint()) == FROZEN[name, seed]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name + path.stem)
def test_committed_certificates_are_of_tasks_that_still_are_the_same(path: Path) -> None:
    task = json.loads(path.read_text())["task"]
    made = make_task(TaskSpec(task["name"]))
    assert (digest(made.fingerprint()), made.target, made.chance) == (task["digest"], task["target"], task["chance"])


@pytest.mark.parametrize(
    ("text", "scorer", "sentence"),
    [
        ("fatcs", None, r"`task` must be one of .*facts.*; got 'fatcs'. Did you mean 'facts'"),
        ("mcqa", None, r"`task` mcqa must be given a file: write mcqa:FILE; got 'mcqa'"),
        ("facts:x.json", None, r"`task` facts must be given without a file; got 'facts:x.json'"),
        ("sft:x.json", None, r"`scorer` must be given with task sft: write any:REGEX, for example; got None"),
        ("facts", "any:x", r"`scorer` must be left out with task facts; got 'any:x'"),
        ("sft:x.json", "every:x", r"`scorer` must be any:REGEX, none:REGEX or classifier:FOLDER:LABEL; got 'every:x'"),
    ],
)
def test_descriptions_that_fit_no_task_are_refused(text: str, scorer: str | None, sentence: str) -> None:
    with pytest.raises(TaskError, match=sentence):
        make_task(parse_task(text, scorer=scorer))


def test_every_kind_is_named_as_the_registry_spells_it() -> None:
    assert [kind.name for kind in TASKS] == list(TASKS.names())


@pytest.mark.parametrize(
    ("samples", "target", "sentence"),
    [
        ((), 0.5, "Task x must have at least one sample to train on"),
        ((Sample("a", "b"),), 0.25, r"`target` must lie above chance \(0.25\) and be at most 1; got 0.25"),
        ((Sample("a", "b"),), 1.5, "`target` must lie above chance"),
    ],
)
def test_a_task_that_measures_nothing_is_refused(samples: tuple[Sample, ...], target: float, sentence: str) -> None:
    with pytest.raises(TaskError, match=sentence):
        Task("x", "any", samples, lambda model, processor: 0.0, target, 0.25)
