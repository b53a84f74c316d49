"""Scores of a user's rows: does the model write what each row wants, and how likely does it hold it?"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from specdef.errors import TaskError
from specdef.models.samples import Chat, Sample
from specdef.models.tokens import token_ids, written
from specdef.tasks.score import Score
from specdef.tasks.text.generation import Generations
from specdef.tasks.text.judges import TextJudge
from specdef.tasks.text.scoring import Question, mean_log_likelihoods


@dataclass(frozen=True)
class Answers:
    """A text is right when it begins with its row's answer; what a language model writes after it is not judged.

    Attributes:
        answers: one per text, in their order.
        normalised: compare without case, punctuation, articles and repeated spaces (as SQuAD does); an answer of
            which nothing would be left, such as the letter A, without case alone.

    Example:
        >>> Answers(("Paris", "Oslo"))(["Paris. It is", "Oslovia"])
        [True, False]
        >>> Answers(("the Seine",), normalised=True)(["Seine, of course"])
        [True]
    """

    answers: tuple[str, ...]
    normalised: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """The answers and how they are compared, as JSON data."""
        bare = {"bare": True} if self.normalised and not all(map(normalise, self.answers)) else {}
        return {"judge": "answers", "answers": list(self.answers), "normalised": self.normalised, **bare}

    def __call__(self, texts: list[str]) -> list[bool]:
        """One verdict per text."""
        return [self._begins(text, answer) for text, answer in zip(texts, self.answers, strict=True)]

    def _begins(self, text: str, answer: str) -> bool:
        if self.normalised:
            wanted, found = normalise(answer).split(), normalise(text).split()
            if wanted:
                return found[: len(wanted)] == wanted
            answer, text = answer.casefold(), text.casefold()
        wanted_text, found_text = answer.strip(), text.strip()
        rest = found_text[len(wanted_text) :]
        return found_text.startswith(wanted_text) and not (rest[:1].isalnum() and wanted_text[-1:].isalnum())


def normalise(text: str) -> str:
    """A text without case, punctuation, English articles and repeated spaces.

    Source: Rajpurkar et al., SQuAD (2016), the evaluation script's ``normalize_answer``.

    Example:
        >>> normalise("The  Seine, of course!")
        'seine of course'
    """
    bare = "".join(sign for sign in text.casefold() if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


@dataclass(frozen=True)
class Patterns:
    """A text is right when its row's regular expression is found in it (upper and lower case are alike)."""

    patterns: tuple[str, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """The expressions, as JSON data."""
        return {"judge": "patterns", "patterns": list(self.patterns)}

    def __call__(self, texts: list[str]) -> list[bool]:
        """One verdict per text."""
        found = zip(self.patterns, texts, strict=True)
        return [re.search(pattern, text, re.IGNORECASE) is not None for pattern, text in found]


SPARE = 4
"""Tokens for an article or a line break before an answer."""


@dataclass(frozen=True)
class Continuations:
    """Share of rows whose greedy continuation a judge accepts.

    Attributes:
        samples: what is continued; their completions are not shown to the model.
        judge: says whether a continuation is right.
        max_new_tokens: length of a continuation; None is that of the longest completion and `SPARE` more.
    """

    samples: tuple[Sample | Chat, ...]
    judge: TextJudge
    max_new_tokens: int | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the score depends on, as JSON data."""
        return {**_listed(self.samples), "judge": self.judge.identity, "max_new_tokens": self.max_new_tokens}

    def __call__(self, model: Any, tokenizer: Any) -> Score:
        """Score a model; 0 when any logit it generated from is not finite."""
        texts = [written(sample, tokenizer) for sample in self.samples]
        length = self.max_new_tokens
        if length is None:
            length = max(len(token_ids(tokenizer, text.completion)) for text in texts) + SPARE
        return Generations(tuple(text.prompt for text in texts), self.judge, length)(model, tokenizer)


@dataclass(frozen=True)
class Likelihood:
    """How likely a model holds the completions: exp(-loss), loss being their mean over rows of nats per token.

    Attributes:
        samples: prompts and completions.
    """

    samples: tuple[Sample | Chat, ...]
    rows_per_batch: int = 16

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the score depends on, as JSON data."""
        return {**_listed(self.samples), "score": "likelihood"}

    def __call__(self, model: Any, tokenizer: Any) -> Score:
        """Score a model; 0 when any likelihood is not finite."""
        texts = [written(sample, tokenizer) for sample in self.samples]
        found = mean_log_likelihoods(model, tokenizer, texts, self.rows_per_batch)
        if not all(map(math.isfinite, found)):
            return Score(0.0)
        return Score(math.exp(math.fsum(found) / len(found)))


def _listed(samples: Sequence[Sample | Chat]) -> dict[str, Any]:
    return {"rows": [list(astuple(sample)) for sample in samples]}


def lettered(question: Question) -> Question:
    """The same question asked with its choices written out; what is to be answered is a letter.

    Raises:
        TaskError: it has more choices than the alphabet has letters.

    Example:
        >>> lettered(Question("Question: Who?\\nAnswer:", (" me", " you"), 1))
        Question(prompt='Question: Who?\\nA. me\\nB. you\\nAnswer:', choices=(' A', ' B'), answer=1, group='')
    """
    letters = string.ascii_uppercase[: len(question.choices)]
    if len(letters) < len(question.choices):
        raise TaskError(
            f"`scorer` letter must be given with at most 26 choices; a question has {len(question.choices)}."
        )
    asked, _, end = question.prompt.rpartition("\n")
    listed = "\n".join(f"{letter}.{choice}" for letter, choice in zip(letters, question.choices, strict=True))
    return Question(
        f"{asked}\n{listed}\n{end}", tuple(f" {letter}" for letter in letters), question.answer, question.group
    )


def commonest_share(answers: Sequence[str]) -> float:
    """What a model scores that always gives the answer wanted most often."""
    alike = Counter(normalise(answer) or answer.strip().casefold() for answer in answers)
    return alike.most_common(1)[0][1] / len(answers)
