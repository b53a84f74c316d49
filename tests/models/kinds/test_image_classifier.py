"""Image classifiers: loss, labels, probes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pico
import pytest
import torch

from specdef.errors import CheckpointError, TaskError
from specdef.models.base import LoadedModel, kind_of
from specdef.models.samples import LabelledImage
from specdef.tasks.images.shapes import shapes

SAMPLES = shapes(2)


def made(folder: Path, family: str, **changes: Any) -> LoadedModel:
    pico.build(family, folder, **changes)
    return kind_of(folder).load(folder)


@pytest.fixture(params=["vit", "resnet"])
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    return made(tmp_path / "model", request.param)


def test_the_loss_is_the_one_transformers_computes(loaded: LoadedModel) -> None:
    batch = loaded.kind.encode(SAMPLES, loaded)
    pixels, labels = batch
    own = loaded.model(pixel_values=pixels, labels=labels).loss
    assert torch.equal(loaded.kind.loss(loaded.model, batch), own)
    assert loaded.kind.num_targets(batch) == 8
    logits, targets = loaded.kind.predictions(loaded.model, batch)
    assert torch.equal(torch.nn.functional.cross_entropy(logits, targets), own)
    assert loaded.kind.loss(loaded.model.double(), batch).dtype == torch.float64


def test_a_batch_is_the_chosen_rows(loaded: LoadedModel) -> None:
    rows = loaded.kind.encode(SAMPLES, loaded)
    pixels, labels = loaded.kind.batch(rows, [3, 0])
    assert torch.equal(pixels, rows[0][[3, 0]])
    assert labels.tolist() == [3, 0]


def test_probes_need_no_processor_and_reach_the_logits(loaded: LoadedModel, tmp_path: Path) -> None:
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    inputs = loaded.kind.probes(config, 3)
    assert inputs["pixel_values"].shape == (3, 3, *([config.get("image_size", 64)] * 2))
    with torch.inference_mode():
        assert loaded.kind.outputs(loaded.model, inputs).shape == (3, 7)


def test_the_head_is_known(loaded: LoadedModel) -> None:
    heads = [path for path, module in loaded.model.named_modules() if loaded.kind.is_head(path) and len(path)]
    assert heads
    assert all(path.startswith("classifier") for path in heads)


@pytest.mark.parametrize("label", [7, -1])
def test_a_label_the_model_has_not_is_refused(loaded: LoadedModel, label: int) -> None:
    odd = LabelledImage.of(np.zeros((1, 8, 8), np.uint8), label)
    with pytest.raises(
        TaskError, match=rf"`task` must have labels that the model has, from 0 to 6; image 8 has {label}"
    ):
        loaded.kind.encode([*SAMPLES, odd], loaded)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"num_labels": 1}, "has 1 and problem_type None"),
        ({"problem_type": "multi_label_classification"}, "has 7 and problem_type multi_label_classification"),
    ],
)
def test_what_gives_no_one_label_is_refused(change: dict[str, Any], found: str, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=rf"must be a classifier that gives one of two or more labels; .* {found}"
    ):
        made(tmp_path / "model", "resnet", **change)


def test_one_image_alone_gives_batchnorm_no_spread(tmp_path: Path) -> None:
    loaded = made(tmp_path / "model", "resnet")
    pixels, labels = loaded.kind.encode(SAMPLES[:1], loaded)
    with pytest.raises(TaskError, match=r"`batch_size` must leave two images or more in a batch of this model"):
        loaded.kind.loss(loaded.model.train(), (pixels[:, :, :8, :8], labels))
