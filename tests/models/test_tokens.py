"""Text as tokens, and tokenizers that do not fit their model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pico
import pico_text
import pytest
import torch

from specdef import attack
from specdef.analysis.curvature.measure import measure_curvature
from specdef.errors import CheckpointError, SpecdefError, TaskError
from specdef.models.loading import load_tokenizer
from specdef.models.samples import Sample
from specdef.models.tokens import encode_completions, token_ids, vocabulary
from specdef.tasks.kinds.facts import facts


class PanicException(BaseException):
    """As pyo3 names what a panic in Rust becomes; it is no `Exception`."""


def panics(*_: Any, **__: Any) -> Any:
    raise PanicException("index out of bounds: the len is 3")


def test_a_completion_is_trained_on_and_its_prompt_is_not(toy_model: Path) -> None:
    loaded = pico_text.loaded(toy_model)
    ids, labels, mask = encode_completions([Sample("ab", "cde"), Sample("", "f")], loaded.processor)
    one = loaded.processor("abcde", add_special_tokens=False).input_ids
    assert ids[0].tolist() == one
    assert labels[0].tolist() == [-100, -100, *one[2:]]
    assert (ids[1, 0].item(), labels[1, 0].item()) == (loaded.processor.bos_token_id, -100)
    assert mask.tolist() == [[1] * 5, [1, 1, 0, 0, 0]]
    with pytest.raises(TaskError, match="A completion must have at least one token; the one after 'ab' has none"):
        encode_completions([Sample("ab", "")], loaded.processor)


def test_a_tokenizer_that_panics_is_one_sentence(toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"`model` must have a tokenizer that reads .*\(index out of bounds"):
        token_ids(panics, "text")
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", panics)
    with pytest.raises(CheckpointError, match=r"must have a tokenizer that transformers loads; it has none \(index"):
        load_tokenizer(toy_model)


def test_ctrl_c_stays_ctrl_c() -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        token_ids(interrupted, "text")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with fewer embeddings than its tokenizer has tokens."""
    folder = pico.build("llama", tmp_path_factory.mktemp("small") / "model", vocab_size=40)
    pico_text.write_tokenizer(folder)
    return folder


def test_tokens_beyond_the_vocabulary_are_one_sentence(small: Path, tmp_path: Path) -> None:
    """They gave an IndexError out of torch's embedding."""
    sentence = r"`model` must have an embedding for every token its tokenizer writes; it has 40, .* has token \d\d"
    with pytest.raises(SpecdefError, match=sentence):
        attack(small, tmp_path / "out", threads=1)
    with pytest.raises(SpecdefError, match=sentence):
        measure_curvature(small)
    loaded = pico_text.loaded(small)
    with pytest.raises(SpecdefError, match=sentence):
        facts().metric(loaded.model, loaded.processor)


def test_the_vocabulary_is_seen_through_wrappers(toy_model: Path) -> None:
    loaded = pico_text.loaded(toy_model)
    assert vocabulary(loaded.model) == pico.VOCAB
    assert vocabulary(torch.nn.DataParallel(loaded.model)) == pico.VOCAB
    assert vocabulary(SimpleNamespace()) is None
