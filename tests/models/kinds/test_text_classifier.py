"""Text classifiers: loss, padding, labels, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pico
import pico_text
import pytest
import torch
from tokenizers import processors

from specdef.errors import CheckpointError, TaskError
from specdef.models.base import LoadedModel, kind_of
from specdef.models.samples import Labelled, LabelledPair
from specdef.models.texts import encode_texts, label_logits

SAMPLES = [Labelled("a short one", 0), Labelled("a much longer text than that", 1), Labelled("", 1)]


def made(folder: Path, family: str, **changes: Any) -> LoadedModel:
    pico.build(family, folder, **changes)
    pico_text.write_tokenizer(folder)
    return kind_of(folder).load(folder)


@pytest.fixture(params=["bert-classifier", "llama-classifier", "roberta-classifier"])
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    return made(tmp_path / "model", request.param)


def test_the_loss_is_the_one_transformers_computes(loaded: LoadedModel) -> None:
    batch = loaded.kind.encode(SAMPLES, loaded)
    ids, labels, mask = batch
    own = loaded.model(input_ids=ids, attention_mask=mask, labels=labels).loss
    assert torch.equal(loaded.kind.loss(loaded.model, batch), own)
    assert loaded.kind.num_targets(batch) == 3
    assert loaded.kind.loss(loaded.model.double(), batch).dtype == torch.float64


def test_padding_changes_no_label(loaded: LoadedModel) -> None:
    texts = [sample.text for sample in SAMPLES]
    together = label_logits(loaded.model, loaded.processor, texts)
    alone = torch.cat([label_logits(loaded.model, loaded.processor, [text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.equal(label_logits(loaded.model, loaded.processor, texts, rows_per_batch=1), alone)


def test_a_batch_has_no_padding_that_none_of_its_rows_needs(loaded: LoadedModel) -> None:
    rows = loaded.kind.encode(SAMPLES, loaded)
    ids, labels, mask = loaded.kind.batch(rows, [0, 2])
    assert ids.shape == mask.shape == (2, len("a short one"))
    assert labels.tolist() == [0, 1]


def test_texts_longer_than_the_model_lose_their_end(loaded: LoadedModel) -> None:
    ids, mask = encode_texts(["a" * 500], loaded.model, loaded.processor)
    assert ids.shape == (1, pico.BLOCK["max_position_embeddings"] - 2)
    assert bool(mask.all())
    assert label_logits(loaded.model, loaded.processor, ["a" * 500]).isfinite().all()


PAIRS = [LabelledPair("first", 0, "and second"), Labelled("alone", 1), LabelledPair("a" * 20, 1, "b" * 80)]


def tell_apart(tokenizer: Any) -> None:
    """Let a pico tokenizer join pairs as BERT's does."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s>:0 $A:0 </s>:0", pair="<s>:0 $A:0 </s>:0 $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]


def test_pairs_are_joined_as_the_tokenizer_joins_them(tmp_path: Path) -> None:
    loaded = made(tmp_path / "model", "bert-classifier")
    tell_apart(loaded.processor)
    rows = loaded.kind.encode(PAIRS, loaded)
    given = loaded.processor(["first"], ["and second"], return_tensors="pt")
    first = loaded.kind.batch(rows, [0])
    assert torch.equal(first[0], given.input_ids)
    assert torch.equal(first[3], given.token_type_ids)
    assert first[3].sum() == len("and second") + 1
    assert rows[3][1].sum() == 0
    with torch.inference_mode():
        wanted = loaded.model(**given).logits
        assert torch.allclose(loaded.kind.predictions(loaded.model, first)[0], wanted)
        blind = loaded.model(**{**given, "token_type_ids": torch.zeros_like(given.token_type_ids)}).logits
    assert not torch.allclose(blind, wanted, atol=1e-4)
    assert torch.allclose(label_logits(loaded.model, loaded.processor, [PAIRS[0].read]), wanted)
    longest = pico.BLOCK["max_position_embeddings"] - 2
    assert rows[0][2].tolist().count(loaded.processor("a").input_ids[1]) == 20, "the longer text loses its end"
    assert int(rows[2][2].sum()) == longest
    assert len(loaded.kind.encode([PAIRS[1]], loaded)) == 3


def test_a_model_that_does_not_tell_first_from_second_reads_pairs_too(loaded: LoadedModel) -> None:
    rows = loaded.kind.encode(PAIRS, loaded)
    assert len(rows) == 3
    assert int(rows[2][0].sum()) == len("first" + "and second")
    loss = loaded.kind.loss(loaded.model, rows)
    assert loss.isfinite()
    assert loss != loaded.kind.loss(
        loaded.model, loaded.kind.encode([Labelled(row.text, row.label) for row in PAIRS], loaded)
    )


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_the_model_has_not_is_refused(loaded: LoadedModel, label: int) -> None:
    with pytest.raises(TaskError, match=f"`task` must have labels that the model has, from 0 to 1; 'x' has {label}"):
        loaded.kind.encode([Labelled("x", label)], loaded)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"num_labels": 1}, "has 1 and problem_type None"),
        ({"problem_type": "multi_label_classification"}, "has 2 and problem_type multi_label_classification"),
    ],
)
def test_what_gives_no_one_label_is_refused(change: dict[str, Any], found: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"must be a classifier that gives one of two or more labels; .* {found}"):
        made(tmp_path / "model", "bert-classifier", **change)


def test_a_decoder_that_names_no_padding_token_is_told_the_tokenizers(tmp_path: Path) -> None:
    """transformers refuses batches of more than one row to it, `verify` sends it 16."""
    loaded = made(tmp_path / "model", "llama-classifier", pad_token_id=None)
    assert loaded.model.config.pad_token_id == loaded.processor.pad_token_id
    texts = [sample.text for sample in SAMPLES]
    assert label_logits(loaded.model, loaded.processor, texts).shape == (3, 2)
    loaded.model.config.pad_token_id = None
    inputs = loaded.kind.probes(json.loads((tmp_path / "model" / "config.json").read_text()), 4)
    with torch.inference_mode():
        found = loaded.kind.outputs(loaded.model, inputs)
        wanted = [loaded.model(input_ids=row.unsqueeze(0)).logits for row in inputs["input_ids"]]
    assert torch.equal(found, torch.cat(wanted))
