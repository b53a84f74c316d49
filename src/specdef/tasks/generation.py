"""Scores of generated text: greedy generation, and the judges that say whether a text is what was wanted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from specdef.checkpoint.header import load_json_object
from specdef.tasks.task import TaskError, start_token

if TYPE_CHECKING:
    import torch


class Judge(Protocol):
    """Says of each generated text whether it is what was wanted."""

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the verdicts depend on, as JSON data."""

    def __call__(self, texts: list[str]) -> list[bool]:
        """One verdict per text."""


@dataclass(frozen=True)
class KeywordRule:
    """A text is wanted when it finds all, any and none of some regular expressions (upper and lower case are alike).

    Attributes:
        all_of: each must be found.
        any_of: at least one must be found; no condition when empty.
        none_of: none may be found.
        min_words: smallest number of different words.

    Raises:
        TaskError: an expression does not compile, or the rule accepts every text.
    """

    all_of: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    min_words: int = 0

    def __post_init__(self) -> None:
        if not (self.all_of or self.any_of or self.none_of or self.min_words > 0):
            raise TaskError("`scorer` must ask for something; the rule is empty. Give all_of, any_of or none_of.")
        for name in ("all_of", "any_of", "none_of"):
            patterns = getattr(self, name)
            if isinstance(patterns, str):
                raise TaskError(f"`{name}` must be a list of regular expressions; got the text {patterns!r}.")
            object.__setattr__(self, name, tuple(patterns))
            for pattern in patterns:
                try:
                    re.compile(pattern)
                except (re.error, TypeError) as error:
                    raise TaskError(
                        f"`{name}` must hold regular expressions; {pattern!r} is none ({error})."
                    ) from error

    @property
    def identity(self) -> dict[str, Any]:
        """The rule as JSON data; ``KeywordRule(**rule)`` is the same rule, where `rule` is its entry "rule"."""
        return {"judge": "keywords", "rule": {name: _plain(value) for name, value in asdict(self).items()}}

    def __call__(self, texts: list[str]) -> list[bool]:
        """One verdict per text."""
        return [self._wanted(text) for text in texts]

    def _wanted(self, text: str) -> bool:
        def found(pattern: str) -> bool:
            return re.search(pattern, text, re.IGNORECASE) is not None

        if len(set(re.findall(r"\w+", text.lower()))) < self.min_words:
            return False
        if any(map(found, self.none_of)) or not all(map(found, self.all_of)):
            return False
        return not self.any_of or any(map(found, self.any_of))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Classifier:
    """A text is wanted when a transformers text classifier gives `label` its highest score.

    Attributes:
        folder: of the classifier and its tokenizer; local files only.
        label: one of the labels in its config.json.

    Raises:
        TaskError: no such folder, or its config names no such label.
    """

    folder: Path
    label: str
    rows_per_batch: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        if not (self.folder / "config.json").is_file():
            raise TaskError(f"`classifier` must be a model folder; {self.folder} has no config.json.")
        labels = load_json_object(self.folder / "config.json").get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
        if self.label not in labels.values():
            known = ", ".join(map(str, labels.values()))
            raise TaskError(f"`label` must be one of the classifier's labels ({known}); got {self.label!r}.")

    @property
    def identity(self) -> dict[str, Any]:
        """The label, and a hash of every file the verdicts depend on; not the folder's name."""
        import blake3

        digest = blake3.blake3()
        for path in sorted(self.folder.iterdir()):
            if path.is_file():
                digest.update(path.name.encode() + b"\0" + blake3.blake3(path.read_bytes()).digest())
        return {"judge": "classifier", "label": self.label, "files": digest.hexdigest()}

    def __call__(self, texts: list[str]) -> list[bool]:
        """One verdict per text."""
        import torch

        model, tokenizer = _classifier(self.folder)
        longest = min(tokenizer.model_max_length, model.config.max_position_embeddings - 2, 512)
        found: list[bool] = []
        for start in range(0, len(texts), self.rows_per_batch):
            rows = [text or " " for text in texts[start : start + self.rows_per_batch]]
            inputs = tokenizer(rows, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            with torch.inference_mode():
                best = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits.argmax(-1)
            found += [model.config.id2label[int(index)] == self.label for index in best]
        return found


@lru_cache(maxsize=1)
def _classifier(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
        return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a stranger's folder makes transformers raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise TaskError(f"`classifier` must be loadable by transformers; {folder} is not ({reason}).") from error


@dataclass(frozen=True)
class Generations:
    """Share of prompts whose greedy continuation satisfies a judge.

    Attributes:
        prompts: what the model continues.
        judge: says whether a continuation is wanted.
        max_new_tokens: length of a continuation.
        chat: put each prompt into the tokenizer's chat template, when it has one.
        stop: the continuation ends before this text.
    """

    prompts: tuple[str, ...]
    judge: Judge
    max_new_tokens: int = 32
    chat: bool = False
    stop: str | None = None
    rows_per_batch: int = 32

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the score depends on, as JSON data."""
        settings = {"max_new_tokens": self.max_new_tokens, "chat": self.chat, "stop": self.stop}
        return {"prompts": list(self.prompts), "judge": self.judge.identity, **settings}

    def __call__(self, model: Any, tokenizer: Any) -> float:
        """Score a model; 0 when any logit it generated from is not finite."""
        texts = self.texts(model, tokenizer)
        return 0.0 if texts is None else sum(self.judge(texts)) / len(texts)

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
        message = [{"role": "user", "content": prompt}]
        return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))


def greedy(model: Any, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int) -> list[str] | None:
    """Continue some prompts by the likeliest token, in one batch padded on the left.

    Args:
        model: a causal language model in evaluation mode, possibly wrapped by peft or accelerate.
        tokenizer: the model's; it is left as it is.
        prompts: texts in which every special token is already written out.
        max_new_tokens: length of a continuation.

    Returns:
        The continuations without special tokens; None when a logit they depend on is not finite.
    """
    import torch

    rows = [tokenizer(prompt, add_special_tokens=False).input_ids or [start_token(tokenizer)] for prompt in prompts]
    width = max(map(len, rows))
    pad = next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0)
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    plain = _unwrapped(model)
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
