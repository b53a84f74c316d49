"""Kinds of models by their config, and what is said to a model that none knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pico
import pytest

from specdef import attack
from specdef.analysis.curvature.measure import measure_curvature
from specdef.errors import CheckpointError, SpecdefError
from specdef.models.base import MODEL_KINDS, ModelKind, find_kind, kind_of
from specdef.models.kinds.causal_lm import CausalLM


@pytest.mark.parametrize("family", [*pico.FAMILIES, *pico.VARIANTS])
def test_a_pico_is_of_the_kind_its_class_says(family: str) -> None:
    found = find_kind({"architectures": [pico.PICOS[family].model], **pico.PICOS[family].arguments})
    model = pico.PICOS[family].model
    if model.endswith(("ForCausalLM", "LMHeadModel")):
        assert found is MODEL_KINDS.get("causal-lm")
    elif model.endswith("ForSequenceClassification"):
        assert found is MODEL_KINDS.get("text-classifier")
    elif model.endswith("ForImageClassification"):
        assert found is MODEL_KINDS.get("image-classifier")
    else:
        assert found is None


def test_every_kind_is_named_as_the_registry_spells_it() -> None:
    assert [kind.name for kind in MODEL_KINDS] == list(MODEL_KINDS.names())


@pytest.mark.parametrize(
    ("config", "description"),
    [
        ({"architectures": ["ViTModel"]}, "a ViTModel"),
        ({"architectures": ["XForCausalLM"], "vision_config": {}}, "a XForCausalLM"),
        ({"architectures": []}, "of a class that config.json does not name"),
        ({"architectures": [7]}, "of a class that config.json does not name"),
        ({}, "of a class that config.json does not name"),
        ({"model_type": "diffusion"}, "of a class that config.json does not name"),
        ({"model_type": "diffusion", "components": 7}, "of a class that config.json does not name"),
    ],
)
def test_a_model_of_no_kind_is_refused_by_name(config: Mapping[str, Any], description: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    kinds = r"a kind that can be attacked \(.*causal-lm.*image-classifier.*text-classifier.*\)"
    with pytest.raises(CheckpointError, match=f"`original` must be a model of {kinds}; .* is {description}"):
        kind_of(tmp_path, argument="original")


@pytest.mark.parametrize("family", ["gemma3-multimodal", "vit-bare-relu", "bert"])
def test_attack_and_curvature_refuse_what_they_cannot_feed(family: str, tmp_path: Path) -> None:
    """Multimodal models gave a traceback."""
    folder = pico.build(family, tmp_path / "model")
    sentence = f"`model` must be a model of a kind that can be attacked .* is a {pico.PICOS[family].model}"
    with pytest.raises(SpecdefError, match=sentence):
        attack(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SpecdefError, match=sentence):
        measure_curvature(folder)


def test_two_kinds_that_claim_one_model_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twin(CausalLM):
        name = "twin"

    kinds: list[ModelKind] = [MODEL_KINDS.get("causal-lm"), Twin()]
    monkeypatch.setattr("specdef.models.base.MODEL_KINDS", kinds)
    with pytest.raises(CheckpointError, match="`model` must be of one kind; causal-lm, twin all claim it"):
        find_kind({"architectures": ["LlamaForCausalLM"]})


def test_heads_are_known_by_any_part_of_their_path() -> None:
    classifier, causal = MODEL_KINDS.get("text-classifier"), MODEL_KINDS.get("causal-lm")
    assert all(map(classifier.is_head, ("classifier.dense", "score")))
    assert not classifier.is_head("bert.pooler.dense")
    assert [causal.is_head(path) for path in ("lm_head", "model.layers.0.mlp.up_proj")] == [True, False]
