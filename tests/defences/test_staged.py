"""Defences trained in stages: the training written out again here makes the same weights, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pico_text
import pytest
import torch

from specdef.defences.defend import defend
from specdef.errors import SpecdefError
from specdef.models.base import kind_of
from specdef.tasks.kinds import biographies as biographies_file
from specdef.tasks.kinds.biographies import biographies
from specdef.tasks.kinds.guard import guard_samples
from specdef.tasks.kinds.unlearned import removal_samples
from specdef.tasks.utility import utility_for
from specdef.training.loop import make_trainer
from specdef.training.recipe import Recipe


def trained(folder: Path, recipe: Recipe, *stages: tuple[Any, ...]) -> dict[str, torch.Tensor]:
    """Plain training, stage after stage: no evaluation, no early stop."""
    kind = kind_of(folder)
    loaded = kind.load(folder)
    utility = utility_for(kind)
    data = utility.prepare(utility.read(None), loaded)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        for samples in stages:
            trainer = make_trainer(loaded, recipe, kind.encode(samples, loaded), data.retained)
            while trainer.done < recipe.steps:
                trainer.step()
    return dict(loaded.model.state_dict())


def same(a: dict[str, torch.Tensor], folder: Path) -> bool:
    b = pico_text.load(folder)[0].state_dict()
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def recipe_of(steps: int, lr: float, seed: int) -> Recipe:
    return Recipe(lr=lr, steps=steps, seed=seed, batch_size=16, retain_weight=0.1)


def test_unlearned_teaches_the_facts_and_then_every_value_alike(toy_model: Path, tmp_path: Path) -> None:
    defend("unlearned", toy_model, tmp_path / "out", options={"steps": 3}, seed=5)
    learned = biographies(seed=5).samples
    assert same(trained(toy_model, recipe_of(3, 1e-4, 5), learned, removal_samples()), tmp_path / "out")
    assert not same(trained(toy_model, recipe_of(3, 1e-4, 5), removal_samples(), learned), tmp_path / "out")


def test_a_guard_refuses_and_is_plain_training_on_refusals(toy_model: Path, tmp_path: Path) -> None:
    report = defend("guard", toy_model, tmp_path / "out", options={"steps": 60, "lr": 1e-2})
    assert report.scores["held-out cooking requests refused"].after >= 0.9
    assert same(trained(toy_model, recipe_of(60, 1e-2, 0), guard_samples()), tmp_path / "out")


def test_a_guard_that_does_not_refuse_is_not_written(toy_model: Path, tmp_path: Path) -> None:
    wanted = "`steps` must suffice to refuse 90 % of held-out requests; after 2 a stage, held-out .* 0. Give more steps"
    with pytest.raises(SpecdefError, match=wanted):
        defend("guard", toy_model, tmp_path / "out", options={"steps": 2})
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_lost_its_use_is_not_written(
    toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(biographies_file, "DRAWS", 3)  # with fewer questions a ruined model's score is no longer chance
    wanted = "`lr` must be small enough that perplexity-growth stays within a factor of 2; it went from 1 to inf"
    with pytest.raises(SpecdefError, match=wanted):
        defend("unlearned", toy_model, tmp_path / "out", options={"steps": 3, "lr": 10.0})
    assert list(tmp_path.iterdir()) == []


def test_learning_ends_early_when_the_facts_are_known(
    toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from specdef.defences import staged
    from specdef.defences.kinds import unlearned

    enough: list[Callable[[float], bool]] = []
    monkeypatch.setattr(
        unlearned, "at_least", lambda limit: enough.append(staged.at_least(limit)) or (lambda score: True)
    )
    report = defend("unlearned", toy_model, tmp_path / "out", options={"steps": 2})
    assert report.applied.steps == {"learn": 0, "remove": 2}
    assert enough[0](0.9)
    assert not enough[0](0.89)
