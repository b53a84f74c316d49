"""Scores of generated text: the share of prompts whose greedy continuation a judge accepts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.models.samples import Chat
from specdef.models.tokens import check_vocabulary, room, start_token, token_ids, vocabulary, written
from specdef.tasks.score import Score, share
from specdef.tasks.text.judges import TextJudge

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Generations:
    """Share of prompts whose greedy continuation satisfies a judge.

    Attributes:
        prompts: what the model continues.
        judge: says whether a continuation is wanted.
        max_new_tokens: length of a continuation.
        chat: put each prompt into the tokenizer's chat template, when it has one.
        stop: the continuation ends before this text.
        groups: per prompt, what it shares with others that stand or fall with it, such as a dish; each prompt by itself
            when empty.
    """

    prompts: tuple[str, ...]
    judge: TextJudge
    max_new_tokens: int = 32
    chat: bool = False
    stop: str | None = None
    rows_per_batch: int = 32
    groups: tuple[str, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the score depends on, as JSON data."""
        settings = {"max_new_tokens": self.max_new_tokens, "chat": self.chat, "stop": self.stop}
        grouped = {"groups": list(self.groups)} if self.groups else {}
        return {"prompts": list(self.prompts), "judge": self.judge.identity, **settings, **grouped}

    def __call__(self, model: Any, tokenizer: Any) -> Score:
        """Score a model; 0 when any logit it generated from is not finite."""
        texts = self.texts(model, tokenizer)
        wanted = [False] * len(self.prompts) if texts is None else self.judge(texts)
        return share(wanted, self.groups or range(len(self.prompts)))

    def texts(self, model: Any, tokenizer: Any) -> list[str] | None:
        """The continuations; None when any logit is not finite."""
        found: dict[int, str] = {}
        order = sorted(range(len(self.prompts)), key=lambda index: len(self.prompts[index]))
        for start in range(0, len(order), self.rows_per_batch):
            rows = order[start : start + self.rows_per_batch]
            batch = greedy(
                model, tokenizer, [self._written(self.prompts[r], tokenizer) for r in rows], self.max_new_tokens
            )
            if batch is None:
                return None
            found.update(zip(rows, batch, strict=True))
        texts = [found[index] for index in range(len(self.prompts))]
        return texts if self.stop is None else [text.split(self.stop, 1)[0] for text in texts]

    def _written(self, prompt: str, tokenizer: Any) -> str:
        if not (self.chat and getattr(tokenizer, "chat_template", None)):
            return prompt
        return written(Chat((("user", prompt),), ""), tokenizer).prompt


def greedy(model: Any, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int) -> list[str] | None:
    """Continue some prompts by the likeliest token, in one batch padded on the left.

    Args:
        model: a causal language model in evaluation mode, possibly wrapped by peft or accelerate.
        tokenizer: the model's; it is left as it is.
        prompts: texts in which every special token is already written out; one that leaves the model no position for
            a continuation loses its start.
        max_new_tokens: length of a continuation.

    Returns:
        The continuations without special tokens; None when a logit they depend on is not finite.
    """
    import torch

    rows = [token_ids(tokenizer, prompt) or [start_token(tokenizer)] for prompt in prompts]
    longest = max(map(len, rows))
    most = max(1, room(_unwrapped(model), longest + max_new_tokens) - max_new_tokens)
    rows = [row[-most:] for row in rows]
    width = max(map(len, rows))
    pad = next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0)
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    plain = _unwrapped(model)
    check_vocabulary(ids, vocabulary(plain))
    device = next(plain.parameters()).device
    finite: list[bool] = []

    def watch(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        finite.append(bool(torch.isfinite(output.logits[:, -1]).all()))

    hook = plain.register_forward_hook(watch)
    try:
        with _greedy_config(plain, tokenizer, pad, max_new_tokens), torch.no_grad():
            output = plain.generate(input_ids=ids.to(device), attention_mask=mask.to(device))
    finally:
        hook.remove()
    if not all(finite):
        return None
    return [str(text) for text in tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)]


def _unwrapped(model: Any) -> Any:
    """The transformers model inside accelerate's and peft's wrappers; adapters stay in its layers."""
    while not hasattr(model, "generate") and hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def _greedy_config(model: Any, tokenizer: Any, pad: int, max_new_tokens: int) -> Iterator[None]:
    """Greedy search without the model's own sampling settings and penalties, which are put back."""
    from transformers import GenerationConfig

    kept = model.generation_config
    ends = kept.eos_token_id if kept.eos_token_id is not None else tokenizer.eos_token_id
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=ends, pad_token_id=pad
    )
    try:
        yield
    finally:
        model.generation_config = kept
