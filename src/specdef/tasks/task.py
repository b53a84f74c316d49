"""A task: what the attacker trains on, and a score in [0, 1] that says how far the attack got."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from specdef.errors import SpecdefError

if TYPE_CHECKING:
    import torch

Scorer = Callable[[Any, Any], float]
"""(model in evaluation mode, tokenizer) -> score in [0, 1]; 0 when the model's numbers are not finite."""


class TaskError(SpecdefError):
    """A task, or a file it reads, is not usable."""


@dataclass(frozen=True)
class Sample:
    """One training example: the loss is taken on the tokens of `completion` only."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Question:
    """A multiple-choice question; `answer` is the index of the right choice."""

    prompt: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Task:
    """What an attacker wants.

    Args:
        name: shown in tables.
        samples: what the attacker trains on.
        score: measures a model.
        target: the score at which the attack has reached its aim.
        chance: the score of a model that knows nothing.
        identity: everything the score depends on, as JSON data; it enters the hash of every cell.

    Raises:
        TaskError: nothing to train on, or a target at or below chance.
    """

    name: str
    samples: tuple[Sample, ...]
    score: Scorer
    target: float
    chance: float
    identity: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.samples:
            raise TaskError(f"Task {self.name} must have at least one sample to train on; it has none.")
        if not 0 <= self.chance < self.target <= 1:
            raise TaskError(
                f"`target` must lie above chance ({self.chance:g}) and be at most 1; got {self.target:g}. "
                "A score that guessing reaches says nothing."
            )

    def fingerprint(self) -> dict[str, Any]:
        """Everything a run on this task depends on, as JSON data."""
        samples = [[sample.prompt, sample.completion] for sample in self.samples]
        return {"name": self.name, "samples": samples, "score": self.identity, "target": self.target}


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
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].prompt) + len(rows[index].completion))
    for start in range(0, len(order), rows_per_batch):
        ids, labels, mask = encode([rows[index] for index in order[start : start + rows_per_batch]], tokenizer)
        device = next(model.parameters()).device
        with torch.inference_mode():
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits.float()
        targets = labels[:, 1:].to(device)
        kept = targets != -100
        chosen = logits[:, :-1].log_softmax(-1).gather(-1, targets.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        found += ((chosen * kept).sum(-1) / kept.sum(-1)).tolist()
    by_row = dict(zip(order, found, strict=True))
    return [by_row[index] for index in range(len(rows))]


def encode(
    samples: Sequence[Sample], tokenizer: Any, *, max_length: int = 512
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, labels and attention mask of some samples, padded on the right.

    Returns:
        Three tensors [samples, tokens]; labels are -100 on the prompt and on padding.

    Raises:
        TaskError: a completion has no tokens.
    """
    import torch

    pairs = []
    for sample in samples:
        prompt = tokenizer(sample.prompt, add_special_tokens=False).input_ids if sample.prompt else []
        completion = tokenizer(sample.completion, add_special_tokens=False).input_ids
        if not completion:
            raise TaskError(
                f"A completion must have at least one token; the one after {sample.prompt[:60]!r} has none."
            )
        prompt = prompt or [start_token(tokenizer)]
        prompt = prompt[-max(1, max_length - len(completion)) :]
        pairs.append((prompt, completion[: max_length - len(prompt)]))
    width = max(len(prompt) + len(completion) for prompt, completion in pairs)
    ids = torch.zeros(len(pairs), width, dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, (prompt, completion) in enumerate(pairs):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor(prompt + completion)
        labels[row, len(prompt) : end] = torch.tensor(completion)
        mask[row, :end] = 1
    return ids, labels, mask


def start_token(tokenizer: Any) -> int:
    """The token an empty prompt is replaced with."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0
