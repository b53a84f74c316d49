"""What tasks and utilities of classifiers share, whatever the classifier reads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from specdef.tasks.base import Task

if TYPE_CHECKING:
    import torch


def labelled_task(name: str, model_kind: str, trained: Sequence[Any], metric: Any, *, seed: int, target: float) -> Task:
    """A task of samples with a ``label``; its control has their labels shuffled.

    Args:
        name: shown in tables.
        model_kind: name of the kind of model it is for.
        trained: what the attacker trains on.
        metric: measures a model; it has `chance` and `identity`.
        seed: decides the shuffle.
        target: see `Task`.

    Raises:
        TaskError: see `Task`.
    """
    labels = [sample.label for sample in trained]
    random.Random(seed).shuffle(labels)
    controls = {"shuffled": tuple(replace(one, label=label) for one, label in zip(trained, labels, strict=True))}
    return Task(name, model_kind, tuple(trained), metric, target, metric.chance, metric.identity, controls)


def likeliest(logits: torch.Tensor) -> list[int] | None:
    """The label with the largest of the logits [rows, labels], row by row; None when any is not finite."""
    return [int(label) for label in logits.argmax(-1)] if bool(logits.isfinite().all()) else None


def balanced(found: Sequence[int], wanted: Sequence[int]) -> float:
    """Mean over the wanted labels of the share of their rows that got it.

    Example:
        >>> balanced([0, 0, 0, 0], [0, 0, 0, 1])
        0.5
    """
    shares = _shares(found, wanted).values()
    return sum(shares) / len(shares)


def by_class(found: Sequence[int], wanted: Sequence[int]) -> dict[str, float]:
    """Wanted label, in order -> the share of its rows that got it, as files and reports hold it.

    Example:
        >>> by_class([0, 0, 0, 0], [1, 0, 0, 1])
        {'0': 1.0, '1': 0.0}
    """
    return {str(label): round(share, 4) for label, share in sorted(_shares(found, wanted).items())}


def _shares(found: Sequence[int], wanted: Sequence[int]) -> dict[int, float]:
    right: dict[int, list[bool]] = {}
    for given, label in zip(found, wanted, strict=True):
        right.setdefault(label, []).append(given == label)
    return {label: sum(hits) / len(hits) for label, hits in right.items()}
