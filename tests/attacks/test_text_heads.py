"""Text classifiers of every family: locked to the bit, trained a step, unlocked to the byte."""

from __future__ import annotations

from pathlib import Path

import pico
import pico_text
import pytest
import torch

from specdef import lock, unlock, verify
from specdef.models.base import kind_of
from specdef.models.samples import Labelled, LabelledPair
from specdef.models.texts import label_logits
from specdef.training.loop import make_trainer
from specdef.training.recipe import Recipe

HEADS = ("llama-classifier", "bert-classifier", "roberta-classifier", "deberta-v2-shared-key")
SAMPLES = [Labelled("a short one", 0), Labelled("a much longer text than that", 1), LabelledPair("two", 0, "texts")]


@pytest.mark.parametrize("family", HEADS)
def test_a_head_is_locked_trained_and_unlocked(family: str, tmp_path: Path) -> None:
    folder = pico.build(family, tmp_path / "model")
    pico_text.write_tokenizer(folder)
    report = lock(folder, tmp_path / "locked", multiplier="2^4")
    assert verify(tmp_path / "locked", original=folder).passed
    original, locked = (kind_of(place).load(place) for place in (folder, tmp_path / "locked"))
    assert locked.kind.name == "text-classifier"
    reads = [sample.read for sample in SAMPLES]
    before = label_logits(locked.model, locked.processor, reads)
    assert torch.equal(before, label_logits(original.model, original.processor, reads))

    weights = {name: weight.clone() for name, weight in locked.model.state_dict().items()}
    rows = locked.kind.encode(SAMPLES, locked)
    trainer = make_trainer(locked, Recipe(lr=1e-3, steps=2, warmup=0.0), rows, rows)
    assert torch.tensor(trainer.step()).isfinite()
    head = next(name for name in weights if locked.kind.is_head(name.rpartition(".")[0]) and name.endswith("weight"))
    assert not torch.equal(locked.model.state_dict()[head], weights[head])
    after = label_logits(locked.model.eval(), locked.processor, reads)
    assert after.isfinite().all()
    assert not torch.equal(after, before)

    assert report.key is not None
    unlock(tmp_path / "locked", tmp_path / "back", report.key)
    for path in folder.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
