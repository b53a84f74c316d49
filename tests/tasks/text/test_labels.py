"""Label accuracy: what always gives one label gets one label's share, and a broken model gets nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pico_text
import pytest

from specdef.models.samples import Labelled
from specdef.tasks.labelled import balanced
from specdef.tasks.score import Score
from specdef.tasks.text.everyday import SUBJECTS, everyday
from specdef.tasks.text.labels import LabelScore


@pytest.mark.parametrize(
    ("found", "wanted", "share"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 1], 0.5),
        ([1, 1, 1, 1], [0, 0, 0, 1], 0.5),
        ([2, 2, 2], [0, 1, 2], 1 / 3),
        ([0, 1, 0, 1], [0, 1, 0, 1], 1.0),
        ([1, 0], [0, 1], 0.0),
        ([0, 0, 1, 1], [0, 0, 0, 1], 5 / 6),
    ],
)
def test_every_label_weighs_the_same(found: list[int], wanted: list[int], share: float) -> None:
    assert balanced(found, wanted) == pytest.approx(share)


def test_a_model_is_scored_and_a_broken_one_gets_nothing(tmp_path: Path) -> None:
    loaded = pico_text.loaded(pico_text.write_classifier(tmp_path / "model", "llama-classifier"))
    metric = LabelScore(everyday()[:40])
    assert metric(loaded.model, loaded.processor).value > 0.9
    assert metric.chance == 1 / len(SUBJECTS)
    swapped = LabelScore(tuple(Labelled(row.text, 1 - row.label) for row in metric.rows))
    assert swapped(loaded.model, loaded.processor).value == pytest.approx(
        1 - metric(loaded.model, loaded.processor).value
    )
    loaded.model.score.weight.data[:] = float("nan")
    assert metric(loaded.model, loaded.processor) == Score(0.0)
    assert replace(metric, groups=(0, 1) * 20)(loaded.model, loaded.processor) == Score(0.0, (0.0, 0.0))


def test_everyday_sentences_differ_and_are_half_and_half() -> None:
    rows = everyday()
    assert len({row.text for row in rows}) == len(rows) == 240
    for half in (rows[0::2], rows[1::2]):
        assert sum(row.label for row in half) == len(half) / 2
