"""Samples: what tasks hand to a kind of model. A kind says which of them it encodes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """Text to continue: the loss is taken on the tokens of `completion` only."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Labelled:
    """Text and the index of its label, from 0."""

    text: str
    label: int


@dataclass(frozen=True)
class Chat:
    """A conversation to continue: the loss is taken on the tokens of `completion`, the assistant's next turn.

    Attributes:
        messages: (role, content) of the turns before it, oldest first.
        completion: what the assistant says.
    """

    messages: tuple[tuple[str, str], ...]
    completion: str
