"""Sentence encoders: no head, and what they give is the mean of the last layer over the tokens of a text."""

from __future__ import annotations

from pathlib import Path

import pico
import pico_text
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from specdef import attack, lock, unlock, verify
from specdef.errors import CheckpointError

TEXTS = ("a short one", "a much longer text than that, with a full stop.", "z")


def embeddings(folder: Path) -> torch.Tensor:
    """Mean of the last layer over each text's own tokens, brought to length 1: [texts, width]."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    mask = inputs.attention_mask
    with torch.inference_mode():
        states = model(input_ids=inputs.input_ids, attention_mask=mask).last_hidden_state
    pooled = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
    return torch.nn.functional.normalize(pooled, dim=-1)


@pytest.fixture(params=["gelu", "relu"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = pico.build("bert-relu", tmp_path / "model", hidden_act=request.param)
    pico_text.write_tokenizer(folder)
    return folder


def test_an_exact_lock_keeps_every_bit_of_the_embeddings(encoder: Path, tmp_path: Path) -> None:
    before = embeddings(encoder)
    report = lock(encoder, tmp_path / "locked")
    stored = [(folder / "model.safetensors").read_bytes() for folder in (encoder, tmp_path / "locked")]
    assert stored[0] != stored[1]
    assert torch.equal(embeddings(tmp_path / "locked"), before)
    check = verify(tmp_path / "locked", original=encoder)
    assert check.passed
    assert report.key is not None
    unlock(tmp_path / "locked", tmp_path / "back", report.key)
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == stored[0]


def test_an_encoder_without_a_head_has_no_task_to_be_attacked_on(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`model` must be a model of a kind that can be attacked .* BertModel"):
        attack(encoder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
