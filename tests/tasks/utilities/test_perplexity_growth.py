"""The worst of several general texts, none of which is trained on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from specdef.errors import SpecdefError, TaskError
from specdef.models.base import LoadedModel, kind_of
from specdef.tasks.text.prose import bundled_prose
from specdef.tasks.utilities.perplexity import perplexity
from specdef.tasks.utilities.perplexity_growth import KIND


@pytest.fixture
def loaded(toy_model: Path) -> LoadedModel:
    return kind_of(toy_model).load(toy_model)


def test_texts_of_four_domains_ship_and_none_of_them_is_mixed_in() -> None:
    texts = json.loads(KIND.read(None))
    assert set(texts["measured"]) == {"novel.txt", "drama.txt", "encyclopedia.txt", "code.txt"}
    assert texts["mix"] == bundled_prose()
    for text in texts["measured"].values():
        assert len(text.split()) > 250
        assert not {line for line in text.splitlines() if len(line) > 40} & set(texts["mix"].splitlines())


def test_the_worst_text_counts(loaded: LoadedModel) -> None:
    data = KIND.prepare(KIND.read(None), loaded)
    assert KIND.measure(loaded.model, data) == 1.0, "the model itself has not grown"
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    ratios = KIND.by_text(loaded.model, data)
    assert len(set(ratios.values())) == 4
    assert KIND.measure(loaded.model, data) == max(ratios.values())
    for name, rows in data.measured.rows.items():
        assert ratios[name] == perplexity(loaded.model, rows) / data.measured.before[name]
    assert len({rows.shape for rows in data.measured.rows.values()}) == 1, "no text weighs more"


def test_it_is_compared_with_the_original_and_not_with_the_model_given(loaded: LoadedModel, toy_model: Path) -> None:
    with torch.no_grad():
        loaded.model.lm_head.weight.mul_(0.5)
    alone = KIND.prepare(KIND.read(None), loaded)
    beside = KIND.prepare(KIND.read(None), loaded, original=lambda: kind_of(toy_model).load(toy_model))
    assert KIND.measure(loaded.model, alone) == 1.0
    assert KIND.measure(loaded.model, beside) != 1.0
    assert KIND.changed(KIND.measure(loaded.model, beside), 1.0)


def test_numbers_that_are_not_finite_are_outside_every_budget(loaded: LoadedModel) -> None:
    data = KIND.prepare(KIND.read(None), loaded)
    with torch.no_grad():
        loaded.model.lm_head.weight.fill_(math.nan)
    assert KIND.measure(loaded.model, data) == math.inf
    assert KIND.changed(math.inf, None)
    with pytest.raises(SpecdefError, match="`original` must predict general text with finite numbers"):
        KIND.prepare(KIND.read(None), loaded)
    assert (KIND.limit(1.0, 2.0), KIND.within(1.0, 2.0, 2.0), KIND.within(1.0, 2.01, 2.0)) == (2.0, True, False)


def test_a_file_is_halved_and_a_folder_names_what_is_mixed(loaded: LoadedModel, tmp_path: Path) -> None:
    lines = [f"line {number} of a long text about nothing in particular" for number in range(80)]
    (tmp_path / "mine.txt").write_text("\n".join(lines))
    halves = json.loads(KIND.read(tmp_path / "mine.txt"))
    assert not set(halves["mix"].splitlines()) & set(halves["measured"]["mine.txt"].splitlines())
    with pytest.raises(TaskError, match=r"a folder with mix\.txt to mix into training .* has mine\.txt"):
        KIND.read(tmp_path)
    (tmp_path / "mix.txt").write_text("\n".join(lines))
    found = json.loads(KIND.read(tmp_path))
    assert (set(found["measured"]), found["mix"]) == ({"mine.txt"}, "\n".join(lines))
    KIND.check(KIND.read(tmp_path), loaded.processor)
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(SpecdefError, match=r"at least 128 tokens.* The text is short\.txt"):
        KIND.check(KIND.read(tmp_path), loaded.processor)


def test_a_toy_model_is_attacked_under_it(toy_model: Path, tmp_path: Path) -> None:
    from specdef import attack
    from specdef.training.recipe import Recipe

    found = attack(
        toy_model, tmp_path, task="facts", utility="perplexity-growth", recipe=Recipe(lr=1e-3, steps=2), threads=1
    )
    assert found.config["utility"]["name"] == "perplexity-growth"
    assert found.result.evaluations[0].utility == 1.0
    assert found.result.evaluations[0].by_group is not None
