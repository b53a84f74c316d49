"""Causal language models: the loss is transformers' own, to the bit."""

from __future__ import annotations

from pathlib import Path

import pico_text
import pytest
import torch

from specdef.models.base import LoadedModel
from specdef.models.samples import Sample

SAMPLES = [Sample("Say", " yes"), Sample("Tell me something", " no, never"), Sample("", "ok")]


@pytest.fixture
def loaded(toy_model: Path) -> LoadedModel:
    return pico_text.loaded(toy_model)


def test_the_loss_is_the_one_transformers_computes(loaded: LoadedModel) -> None:
    batch = loaded.kind.encode(SAMPLES, loaded)
    ids, labels, mask = batch
    own = loaded.model(input_ids=ids, attention_mask=mask, labels=labels).loss
    assert torch.equal(loaded.kind.loss(loaded.model, batch), own)
    assert loaded.kind.num_targets(batch) == int((labels != -100).sum())


def test_predictions_are_what_the_loss_is_of_and_float64_stays(loaded: LoadedModel) -> None:
    model = loaded.model.double()
    batch = loaded.kind.encode(SAMPLES, loaded)
    logits, targets = loaded.kind.predictions(model, batch)
    assert len(targets) == loaded.kind.num_targets(batch)
    loss = loaded.kind.loss(model, batch)
    assert loss.dtype == torch.float64
    assert float(loss) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, targets)), rel=1e-12)


def test_a_batch_has_no_padding_that_none_of_its_rows_needs(loaded: LoadedModel) -> None:
    rows = loaded.kind.encode(SAMPLES, loaded)
    ids, labels, mask = loaded.kind.batch(rows, [2, 0])
    assert ids.shape == labels.shape == mask.shape == (2, 7)
    assert torch.equal(ids[1], rows[0][0, :7])
    assert mask[:, -1].tolist() == [0, 1]
