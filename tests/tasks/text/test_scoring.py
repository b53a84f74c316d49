"""Likelihoods of answers: prompts read once give what whole rows give, and every choice is asked of its own prompt."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pico
import pico_text
import pytest
import torch

from specdef.models.base import kind_of
from specdef.models.samples import Sample
from specdef.tasks.text.generation import greedy
from specdef.tasks.text.scoring import MultipleChoice, Question, mean_log_likelihoods


@pytest.fixture
def model(toy_model: Path) -> tuple[Any, Any]:
    return pico_text.load(toy_model)


def reference(model: Any, tokenizer: Any, row: Sample) -> float:
    """One row by itself, token after token, in float64."""
    prompt = tokenizer(row.prompt, add_special_tokens=False).input_ids
    answer = tokenizer(row.completion, add_special_tokens=False).input_ids
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
    chosen = [float(logits[len(prompt) + index - 1, token]) for index, token in enumerate(answer)]
    return sum(chosen) / len(chosen)


def test_one_token_and_longer_answers_have_the_likelihood_of_their_own_row(model: tuple[Any, Any]) -> None:
    """The toy's tokenizer writes a token a letter."""
    rows = [Sample(p, c) for p in ("a b", "c d", "a longer one") for c in ("x", "y", "yz", "xyz")]
    found = mean_log_likelihoods(*model, [*rows, rows[0]], rows_per_batch=2)
    assert found == pytest.approx([reference(*model, row) for row in [*rows, rows[0]]], rel=1e-5)
    assert len(set(found)) == len(rows)


def test_a_prompt_is_read_once_for_all_its_choices(model: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    toy, tokenizer = model
    read: list[torch.Size] = []
    forward = type(toy).forward

    def counted(self: Any, *, input_ids: torch.Tensor, **more: Any) -> Any:
        read.append(input_ids.shape)
        return forward(self, input_ids=input_ids, **more)

    monkeypatch.setattr(type(toy), "forward", counted)
    questions = tuple(Question("who is it", tuple("abcd"[i:] + "efg"[:i]), 0) for i in range(3))
    MultipleChoice(questions)(toy, tokenizer)
    assert read == [torch.Size([1, 9])], "three questions and twelve choices, one prompt"


def test_groups_and_a_model_without_numbers(model: tuple[Any, Any]) -> None:
    toy, tokenizer = model
    questions = (Question("p", ("a", "b"), 0, "one"), Question("q", ("a", "b"), 0, "one"), Question("r", ("a", "b"), 0))
    score = MultipleChoice(questions)(toy, tokenizer)
    assert score.by_group is not None
    assert len(score.by_group) == 2
    assert "group" not in MultipleChoice(questions).identity["questions"][2]
    with torch.no_grad():
        toy.lm_head.weight.fill_(float("nan"))
    broken = MultipleChoice(questions)(toy, tokenizer)
    assert (broken.value, broken.by_group) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_long_texts_are_cut_to_the_positions_that_a_model_has_learned(family: str, tmp_path: Path) -> None:
    """One more is an index out of range. Llama computes its positions: nothing is cut but at the general limit."""
    pico.build(family, tmp_path)
    pico_text.write_tokenizer(tmp_path)
    loaded = kind_of(tmp_path).load(tmp_path)
    model, tokenizer, learned = loaded.model, loaded.processor, loaded.model.config.max_position_embeddings
    long = "Orla owns a cat. " * learned
    batch = loaded.kind.encode((Sample(long, " yes"), Sample("short", " no")), loaded)
    assert batch[0].shape[1] == (512 if family == "llama" else learned)
    assert loaded.kind.loss(model, batch).isfinite()
    written = greedy(model, tokenizer, [long], 5)
    assert written is not None
    if family != "llama":
        assert written == greedy(model, tokenizer, [long[len(long) // 2 :]], 5), "what is cut plays no part"
    found = mean_log_likelihoods(model, tokenizer, [Sample(long, "a"), Sample(long, " two words")], 2)
    assert all(map(math.isfinite, found))
