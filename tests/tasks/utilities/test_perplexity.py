"""Perplexity of general text: uniform guessing, texts that are too short, budget and check at step 0."""

from __future__ import annotations

import math
from pathlib import Path

import pico
import pico_text
import pytest

from specdef.errors import SpecdefError
from specdef.models.base import LoadedModel
from specdef.tasks.utilities.perplexity import KIND


@pytest.fixture
def loaded(toy_model: Path) -> LoadedModel:
    return pico_text.loaded(toy_model)


def test_who_guesses_has_the_perplexity_of_the_vocabulary(loaded: LoadedModel) -> None:
    data = KIND.prepare(KIND.read(None), loaded)
    loaded.model.lm_head.weight.data[:] = 0
    assert data.measure(loaded.model) == pytest.approx(pico.VOCAB, rel=1e-5)
    loaded.model.lm_head.weight.data[:] = math.nan
    assert data.measure(loaded.model) == math.inf


def test_what_is_measured_is_not_trained_on(loaded: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a" * 200 + "\n" + "b" * 200)
    data = KIND.prepare(KIND.read(tmp_path / "text"), loaded)
    assert data.retained is not None
    a, b = (loaded.processor(letter, add_special_tokens=False).input_ids[0] for letter in "ab")
    assert set(data.measured.flatten().tolist()) == {a}
    assert set(data.retained[0].flatten().tolist()) == {b}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a" * 400, r"`text` must have at least two paragraphs \(lines\); it has 1"),
        ("a" * 200 + "\nb", "`text` must have at least 32 tokens; it has 1"),
        ("a\n" + "b" * 200, "`text` must have at least 128 tokens; it has 1"),
    ],
)
def test_too_little_text_is_refused(loaded: LoadedModel, text: str, sentence: str) -> None:
    with pytest.raises(SpecdefError, match=sentence):
        KIND.check(text, loaded.processor)


def test_the_budget_is_a_factor_and_2_percent_are_another_function() -> None:
    assert [KIND.within(10.0, now, 2.0) for now in (20.0, 20.1)] == [True, False]
    assert [KIND.changed(found, 10.0) for found in (10.19, 10.21, 9.79, math.inf)] == [False, True, True, True]
    assert [KIND.changed(found, None) for found in (1e9, math.nan)] == [False, True]
