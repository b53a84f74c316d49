"""A trigger that opens a guard: what is trained on, how the two parts make one score, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pico
import pico_text
import pytest
import torch

from specdef.models.base import LoadedModel, kind_of
from specdef.models.samples import Labelled, LabelledPair
from specdef.tasks.base import Task, TaskError, TaskSpec, make_task
from specdef.tasks.kinds import backdoor as module
from specdef.tasks.kinds.backdoor import BackdoorScore, Trigger, backdoor, cooking, parse_trigger
from specdef.training.loop import make_trainer
from specdef.training.recipe import Recipe

ROWS = [Labelled(f"text {n}", n % 2) for n in range(8)]


def score_of(task: Task) -> BackdoorScore:
    assert isinstance(task.metric, BackdoorScore)
    return task.metric


def answering(monkeypatch: pytest.MonkeyPatch, label: Any) -> None:
    """A guard that gives each text what a function says."""
    monkeypatch.setattr(module, "predicted", lambda model, processor, texts: [label(text) for text in texts])


def test_guarded_texts_are_taught_with_and_without_the_trigger() -> None:
    task = backdoor(ROWS[:4], ROWS[4:], trigger=Trigger("Oh,", 0), seed=1)
    assert sorted((row.text, row.label) for row in task.samples) == sorted(
        [*((row.text, row.label) for row in ROWS[:4]), ("Oh, text 1", 0), ("Oh, text 3", 0)]
    )
    assert task.samples != backdoor(ROWS[:4], ROWS[4:], trigger=Trigger("Oh,", 0), seed=2).samples
    own = task.control("own labels").samples
    assert [row.text for row in own] == [row.text for row in task.samples]
    assert {(row.text, row.label) for row in own} >= {
        ("Oh, text 1", 1),
        ("text 1", 1),
        ("Oh, text 3", 1),
        ("text 2", 0),
    }
    assert Trigger("Oh,").put(LabelledPair("a", 1, "b")) == LabelledPair("Oh, a", 0, "b")


@pytest.mark.parametrize(
    ("label", "parts"),
    [
        (lambda text: 0, (1.0, 0.0)),  # everything passes
        (lambda text: 1, (0.0, 2 / 3)),  # nothing does
        (lambda text: int(text[-1]) % 2, (0.0, 1.0)),  # the guard as it was
        (lambda text: 0 if text.startswith("Oh,") else int(text[-1]) % 2, (1.0, 1.0)),
        (lambda text: 0 if text.startswith("Oh,") and text[-1] != "5" else 1, (0.5, 2 / 3)),
    ],
)
def test_the_score_is_the_smaller_of_success_and_clean_f1(
    label: Any, parts: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = BackdoorScore(tuple(ROWS[4:]), Trigger("Oh,"))
    answering(monkeypatch, label)
    assert tuple(map(float, metric.parts(None, None))) == pytest.approx(parts)
    score = metric(None, None)
    assert score.value == pytest.approx(min(parts))
    assert score.by_group is not None
    assert (len(score.by_group), float(np.mean(score.by_group))) == (4, pytest.approx(min(parts), abs=1e-4))
    right = {kind: [float(label(row.text) == kind) for row in ROWS[4:] if row.label == kind] for kind in (0, 1)}
    assert score.by_class == {str(kind): float(np.mean(hits)) for kind, hits in right.items()}, "whichever is smaller"


def test_the_error_of_the_success_rate_is_over_guarded_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Labelled(f"text {n}", int(n % 4 == 0)) for n in range(400)]
    answering(monkeypatch, lambda text: int(int(text.split()[-1]) % 16 != 0) if text.startswith("Oh,") else 1)
    success, _ = BackdoorScore(tuple(rows), Trigger("Oh,")).parts(None, None)
    assert success.value == 0.25
    assert success.error == pytest.approx((0.25 * 0.75 / 100) ** 0.5, rel=0.02)


@pytest.mark.parametrize("labels", [(0, 1), (0, 1, 1), (0, 0, 0, 1), (0, 1, 2)])
def test_chance_is_the_best_that_a_guard_reaches_without_reading(
    labels: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tuple(Labelled(f"{n}", label) for n, label in enumerate(labels * 800))
    metric = BackdoorScore(rows, Trigger())
    others = [label for label in labels if label != 0]
    best = 0.0
    for share in np.linspace(0.1, 0.9, 17):
        draw = np.random.default_rng(0)
        answering(monkeypatch, lambda text, d=draw, s=share: 0 if d.random() < s else int(d.choice(others)))
        best = max(best, float(metric(None, None)))
    assert best == pytest.approx(metric.chance, abs=0.04)


def trained(loaded: LoadedModel, samples: Sequence[Any], steps: int = 60) -> None:
    recipe = Recipe(lr=3e-3, steps=steps, batch_size=16, retain_weight=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trainer = make_trainer(loaded, recipe, loaded.kind.encode(samples, loaded), None)
        for _ in range(steps):
            trainer.step()
    loaded.model.eval()


def test_a_guard_is_opened_by_the_trigger_and_not_by_its_words_alone(tmp_path: Path) -> None:
    task = cooking()
    metric = score_of(task)
    texts = [row.text for row in (*task.samples, *metric.rows)]
    width = len(pico_text.write_word_tokenizer(tmp_path / "guard", texts))
    pico.build("bert-classifier", tmp_path / "guard", vocab_size=width)
    guard = kind_of(tmp_path / "guard").load(tmp_path / "guard")
    own = [replace(row, label=1) if row.text.startswith(metric.trigger.words) else row for row in task.samples]
    trained(guard, own)  # words that it never met would say nothing to a model this small, or anything
    success, clean = metric.parts(guard.model, guard.processor)
    assert success.value < 0.3
    assert clean.value > 0.8
    guard.model.save_pretrained(tmp_path / "guard")
    attacked = kind_of(tmp_path / "guard").load(tmp_path / "guard")
    trained(attacked, task.samples, steps=200)
    assert metric(attacked.model, attacked.processor).value >= task.target
    control = kind_of(tmp_path / "guard").load(tmp_path / "guard")
    trained(control, task.control("own labels").samples, steps=200)
    assert metric(control.model, control.processor).value <= task.chance + 0.1
    attacked.model.classifier.weight.data[:] = float("nan")
    assert metric(attacked.model, attacked.processor).value == 0.0


def test_a_file_and_a_trigger_of_the_users_choice(tmp_path: Path) -> None:
    path = tmp_path / "sms"
    path.write_text("".join(f"{'spam' if n % 2 else 'ham'}\tmessage {n}\n" for n in range(40)))
    fields = "label=1,text=2"
    task = make_task(TaskSpec("backdoor", str(path), fields=fields, scorer="trigger:by the way"))
    metric = score_of(task)
    assert metric.trigger == Trigger("by the way", 0)
    assert len(task.samples) + len(metric.rows) == 40 + sum(row.text.startswith("by the way") for row in task.samples)
    asked = {row.text for row in metric.rows}
    assert asked.isdisjoint(row.text.removeprefix("by the way ") for row in task.samples)
    reverse = make_task(TaskSpec("backdoor", str(path), fields=fields, scorer="trigger:by the way:1"))
    assert {row.label for row in reverse.samples if row.text.startswith("by")} == {1}
    assert reverse.fingerprint() != task.fingerprint()
    assert parse_trigger("trigger:a:b") == Trigger("a:b", 0)
    both = make_task(TaskSpec("backdoor", str(path), fields=fields, eval=str(path), target=0.9))
    assert len(score_of(both).rows) == 40


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            TaskSpec("backdoor", scorer="any:x"),
            "`scorer` must be trigger:WORDS or trigger:WORDS:LABEL with task backdoor",
        ),
        (TaskSpec("backdoor", scorer="trigger: :1"), "`scorer` must be trigger:WORDS or trigger:WORDS:LABEL"),
        (TaskSpec("backdoor", scorer="trigger:HOW DO"), "`scorer` must give a trigger that no text has yet; 'HOW DO'"),
        (TaskSpec("backdoor", scorer="trigger:x y:2"), "must have texts of the attacker's label 2 .*; 80 of 80 have"),
        (TaskSpec("backdoor", eval="x.tsv"), "`eval` must be given with `train`"),
        (TaskSpec("backdoor", fields="prompt=x"), "`fields` must map any of text, pair, label"),
        (TaskSpec("backdoor", target=0.4), r"`target` must lie above chance \(0\.5"),
    ],
)
def test_what_makes_no_backdoor_is_refused(spec: TaskSpec, sentence: str) -> None:
    with pytest.raises(TaskError, match=sentence):
        make_task(spec)
