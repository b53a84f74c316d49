"""`attack` of a model in memory: the folder's result, and the caller's model as it was."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pico_text
import pytest
import torch

import specdef
from specdef import Recipe
from specdef.errors import SpecdefError

SHORT = Recipe(steps=2, eval_every=1, batch_size=4, lr=1e-3)
HOW: dict[str, Any] = {"task": "facts", "utility": "perplexity", "recipe": SHORT, "threads": 1, "device": "cpu"}


def test_a_model_in_memory_comes_to_what_its_folder_comes_to(toy_model: Path, tmp_path: Path) -> None:
    model, tokenizer = pico_text.load(toy_model)
    model.config.architectures = None  # as of a model built from a config; saving notes the class
    weights, config = copy.deepcopy(model.state_dict()), model.config.to_dict()
    found = specdef.attack(model.train(), tokenizer=tokenizer, **HOW)
    assert found.result == specdef.attack(toy_model, tmp_path / "runs", **HOW).result
    assert found.result.steps == 2
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert model.config.to_dict() == config
    assert model.training
    assert found.measured.subject_name == "LlamaForCausalLM"
    assert str(tmp_path) not in repr(found.to_dict())


@pytest.mark.parametrize("options", [{"preset": "exact"}, {"preset": "paper", "targets": ["*.gate_proj"], "rank": 3}])
def test_a_model_locked_in_memory_is_attacked_against_its_original(options: dict[str, Any], toy_model: Path) -> None:
    model, tokenizer = pico_text.load(toy_model)
    specdef.lock(model, **options)
    original, _ = pico_text.load(toy_model)
    found = specdef.attack(model, tokenizer=tokenizer, original=original, **HOW)
    assert found.result.counts
    assert found.config["reference_perplexity"] == pytest.approx(found.result.evaluations[0].utility, rel=1e-5)


def test_what_does_not_go_together_is_said(toy_model: Path) -> None:
    with pytest.raises(SpecdefError, match="`tokenizer` must be left out for a folder"):
        specdef.attack(toy_model, tokenizer=object(), **HOW)
    with pytest.raises(SpecdefError, match="`model` must be a transformers model; got a Linear"):
        specdef.attack(torch.nn.Linear(2, 2), **HOW)


def test_there_is_one_default_learning_rate() -> None:
    import inspect

    from specdef.certify.study_file import parse_study, study_recipe
    from specdef.cli.attack import attack

    assert inspect.signature(attack).parameters["lr"].default == Recipe().lr == 1e-4
    study = parse_study(b"{specdef_study: 1, title: t, models: [m], attacks: [{}]}")
    assert study_recipe(study).lr == 1e-5  # what a study file means does not change
