"""Scores of likelihood: which answer does a model hold for the likeliest?"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from specdef.core.processes import without_gradients
from specdef.models.samples import Sample
from specdef.models.tokens import (
    MAX_LENGTH,
    bare,
    check_vocabulary,
    encode_completions,
    reader,
    room,
    start_token,
    vocabulary,
)
from specdef.tasks.score import Score, share


@dataclass(frozen=True)
class Question:
    """A multiple-choice question.

    Attributes:
        prompt: what is asked.
        choices: what may be answered.
        answer: index of the right choice.
        group: what other questions share that stand or fall with this one, such as a fact; the prompt when "".
    """

    prompt: str
    choices: tuple[str, ...]
    answer: int
    group: str = ""


@dataclass(frozen=True)
class MultipleChoice:
    """Share of questions whose right choice has the highest mean log-likelihood per token."""

    questions: tuple[Question, ...]
    rows_per_batch: int = 48

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the score depends on, as JSON data; a question without a group is written as it always was."""
        questions = [
            {name: value for name, value in asdict(question).items() if name != "group" or value}
            for question in self.questions
        ]
        return {"questions": questions, "rows_per_batch": self.rows_per_batch}

    def __call__(self, model: Any, tokenizer: Any) -> Score:
        """Score a model; 0 when any likelihood is not finite, so that a broken model never scores by luck."""
        groups = [question.group or question.prompt for question in self.questions]
        rows = [Sample(question.prompt, choice) for question in self.questions for choice in question.choices]
        likelihoods = iter(mean_log_likelihoods(model, tokenizer, rows, self.rows_per_batch))
        found = [[next(likelihoods) for _ in question.choices] for question in self.questions]
        if not all(math.isfinite(value) for values in found for value in values):
            return share([False] * len(groups), groups)
        best = (max(range(len(values)), key=values.__getitem__) for values in found)
        return share([one == question.answer for one, question in zip(best, self.questions, strict=True)], groups)


def mean_log_likelihoods(model: Any, tokenizer: Any, rows: Sequence[Sample], rows_per_batch: int) -> list[float]:
    """Mean log-probability per token of each completion after its prompt (nats).

    A prompt is read once for all its completions of one token; a longer completion is read with its prompt.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: the model's.
        rows: prompts and completions.
        rows_per_batch: prompts per forward pass.
    """
    read = reader(tokenizer)
    prompts = {row.prompt: read(row.prompt) if row.prompt else [] for row in rows}
    completions = {row.completion: read(row.completion) for row in rows}
    short = [row for row in rows if len(completions[row.completion]) == 1]
    found = dict(_one_token(model, tokenizer, short, prompts, completions, rows_per_batch))
    long = [row for row in dict.fromkeys(rows) if len(completions[row.completion]) != 1]
    found |= dict(zip(long, _whole_rows(model, tokenizer, long, rows_per_batch, read), strict=True))
    return [found[row] for row in rows]


def _one_token(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Sample],
    prompts: dict[str, list[int]],
    completions: dict[str, list[int]],
    rows_per_batch: int,
) -> Iterator[tuple[Sample, float]]:
    """Rows whose completion is one token: what the model expects after each prompt, prompts of one length together."""
    import torch

    wanted: dict[str, list[str]] = {}
    for row in dict.fromkeys(rows):
        wanted.setdefault(row.prompt, []).append(row.completion)
    most = room(model, MAX_LENGTH)
    ids = {prompt: (prompts[prompt] or [start_token(tokenizer)])[1 - most :] for prompt in wanted}
    lengths: dict[int, list[str]] = {}
    for prompt, tokens in ids.items():
        lengths.setdefault(len(tokens), []).append(prompt)
    device = next(model.parameters()).device
    for alike in lengths.values():
        for start in range(0, len(alike), rows_per_batch):
            batch = alike[start : start + rows_per_batch]
            rows_of_ids = torch.tensor([ids[prompt] for prompt in batch])
            answers = [torch.tensor([completions[one][0] for one in wanted[prompt]]) for prompt in batch]
            check_vocabulary(torch.cat([rows_of_ids.flatten(), *answers]), vocabulary(model))
            with without_gradients():
                expected = _next_token(model, rows_of_ids.to(device)).float().log_softmax(-1)
            for prompt, chosen, logits in zip(batch, answers, expected, strict=True):
                for completion, value in zip(wanted[prompt], logits[chosen.to(device)].tolist(), strict=True):
                    yield Sample(prompt, completion), value


def _next_token(model: Any, tokens: Any) -> Any:
    """Logits [rows, vocabulary] after the last token of rows of one length."""
    base = bare(model)
    forward = (base.get_base_model() if hasattr(base, "get_base_model") else base).forward
    last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(forward).parameters else {}
    return model(input_ids=tokens, **last).logits[:, -1]


def _whole_rows(
    model: Any, tokenizer: Any, rows: Sequence[Sample], rows_per_batch: int, read: Callable[[str], list[int]]
) -> list[float]:

    found: list[float] = []
    known, most = vocabulary(model), room(model, MAX_LENGTH)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].prompt) + len(rows[index].completion))
    for start in range(0, len(order), rows_per_batch):
        chosen_rows = [rows[index] for index in order[start : start + rows_per_batch]]
        ids, labels, mask = encode_completions(chosen_rows, tokenizer, max_length=most, vocabulary=known, read=read)
        device = next(model.parameters()).device
        with without_gradients():
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits.float()
        targets = labels[:, 1:].to(device)
        kept = targets != -100
        chosen = logits[:, :-1].log_softmax(-1).gather(-1, targets.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        found += ((chosen * kept).sum(-1) / kept.sum(-1)).tolist()
    by_row = dict(zip(order, found, strict=True))
    return [by_row[index] for index in range(len(rows))]
