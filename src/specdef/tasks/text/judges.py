"""Judges: they say of each generated text whether it is what was wanted."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from specdef.checkpoint.header import load_json_object
from specdef.errors import TaskError


class TextJudge(Protocol):
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


def parse_scorer(text: str) -> TextJudge:
    """Read what counts as success in generated text.

    ``any:REGEX`` (found) and ``none:REGEX`` (not found) are keyword rules; ``classifier:FOLDER:LABEL`` is a text
    classifier of transformers.

    Raises:
        TaskError: not of these forms.
    """
    kind, _, rest = text.partition(":")
    if rest and kind == "any":
        return KeywordRule(any_of=(rest,))
    if rest and kind == "none":
        return KeywordRule(none_of=(rest,))
    folder, _, label = rest.rpartition(":")
    if kind == "classifier" and folder and label:
        return Classifier(Path(folder), label)
    raise TaskError(f"`scorer` must be any:REGEX, none:REGEX or classifier:FOLDER:LABEL; got {text!r}.")
