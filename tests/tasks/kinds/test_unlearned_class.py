"""A class taught again: neither never nor always giving its label is worth more than chance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pico_judge import Says

from specdef.tasks.base import TaskError, TaskSpec, make_task
from specdef.tasks.images.digits import digits
from specdef.tasks.kinds.unlearned_class import ClassKnown, unlearned_class


def scored(metric: ClassKnown, rule: Callable[[int], int]) -> float:
    return metric(Says([row.label for row in metric.rows], rule), None).value


def test_who_knows_the_class_scores_one_and_who_does_not_scores_chance() -> None:
    task = make_task(TaskSpec("unlearned-class", path="3"))
    metric = task.metric
    assert isinstance(metric, ClassKnown)
    assert (task.chance, task.target) == (0.5, 0.8)
    assert scored(metric, lambda label: label) == 1.0
    assert scored(metric, lambda label: 7 if label == 3 else label) == 0.5, "unlearned"
    assert scored(metric, lambda label: 3) == 0.5
    assert scored(metric, lambda label: 3 if label == 3 else 0) == 1.0, "the others' own labels are utility's business"
    spoilt = Says([row.label for row in metric.rows], lambda label: label)
    spoilt.forward = lambda pixel_values: SimpleNamespace(logits=torch.full((len(pixel_values), 10), torch.nan))  # type: ignore[method-assign]
    assert metric(spoilt, None).value == 0


def test_the_class_alone_is_trained_on_and_what_is_asked_is_not() -> None:
    task = make_task(TaskSpec("unlearned-class", path="3", seed=2))
    rows = task.metric.rows  # type: ignore[attr-defined]
    assert {sample.label for sample in task.samples} == {3}
    assert np.bincount([row.label for row in rows]).tolist() == [1, 1, 1, 9, 1, 1, 1, 1, 1, 1]
    asked = {row.data for row in rows}
    control = task.control("other classes").samples
    assert asked.isdisjoint(sample.data for sample in (*task.samples, *control))
    assert 3 not in {sample.label for sample in control}
    assert len(control) == len(task.samples) == 60 - 9
    assert task.fingerprint() != make_task(TaskSpec("unlearned-class", path="4", seed=2)).fingerprint()


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    drawn = digits(40)
    pixels = np.stack([(255 * image.pixels).round().astype(np.uint8) for image in drawn])
    np.savez(tmp_path / "own.npz", images=pixels, labels=[image.label for image in drawn])
    task = make_task(TaskSpec("unlearned-class", path=f"5:{tmp_path / 'own.npz'}", seed=1, target=0.9))
    assert task.fingerprint() == unlearned_class(drawn, 5, source="", seed=1, target=0.9).fingerprint()


@pytest.mark.parametrize("path", [None, "digits", "three:file.npz", "-1", "3x"])
def test_a_class_must_be_named(path: str | None) -> None:
    with pytest.raises(TaskError, match=r"`task` unlearned-class must be given the class: write unlearned-class:3 or"):
        make_task(TaskSpec("unlearned-class", path=path))


def test_a_class_that_is_not_there_or_has_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"`task` must name a class that the bundled digits has .*:9; got class 12"):
        make_task(TaskSpec("unlearned-class", path="12"))
    with pytest.raises(TaskError, match=r"`path` must have 36 different images of class 0 .*; file has 35 and 35"):
        unlearned_class(digits(35), 0, source="file")
    with pytest.raises(TaskError, match=r"`scorer` must be left out with task unlearned-class"):
        make_task(TaskSpec("unlearned-class", path="3", scorer="exact"))
