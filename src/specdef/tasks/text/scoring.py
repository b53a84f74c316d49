"""Scores of likelihood: which answer does a model hold for the likeliest?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from specdef.models.samples import Sample
from specdef.models.tokens import encode_completions, vocabulary


@dataclass(frozen=True)
class Question:
    """A multiple-choice question; `answer` is the index of the right choice."""

    prompt: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class MultipleChoice:
    """Share of questions whose right choice has the highest mean log-likelihood per token."""

    questions: tuple[Question, ...]
    rows_per_batch: int = 48

    def __call__(self, model: Any, tokenizer: Any) -> float:
        """Score a model; 0 when any likelihood is not finite, so that a broken model never scores by luck."""
        rows = [Sample(question.prompt, choice) for question in self.questions for choice in question.choices]
        likelihoods = mean_log_likelihoods(model, tokenizer, rows, self.rows_per_batch)
        if not all(map(math.isfinite, likelihoods)):
            return 0.0
        right, start = 0, 0
        for question in self.questions:
            scores = likelihoods[start : start + len(question.choices)]
            right += max(range(len(scores)), key=scores.__getitem__) == question.answer
            start += len(question.choices)
        return right / len(self.questions)


def mean_log_likelihoods(model: Any, tokenizer: Any, rows: Sequence[Sample], rows_per_batch: int) -> list[float]:
    """Mean log-probability per token of each completion after its prompt (nats)."""
    import torch

    found: list[float] = []
    known = vocabulary(model)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].prompt) + len(rows[index].completion))
    for start in range(0, len(order), rows_per_batch):
        chosen_rows = [rows[index] for index in order[start : start + rows_per_batch]]
        ids, labels, mask = encode_completions(chosen_rows, tokenizer, vocabulary=known)
        device = next(model.parameters()).device
        with torch.inference_mode():
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits.float()
        targets = labels[:, 1:].to(device)
        kept = targets != -100
        chosen = logits[:, :-1].log_softmax(-1).gather(-1, targets.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        found += ((chosen * kept).sum(-1) / kept.sum(-1)).tolist()
    by_row = dict(zip(order, found, strict=True))
    return [by_row[index] for index in range(len(rows))]
