"""Scores of classifiers: labels given rightly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from specdef.models.samples import Labelled
from specdef.models.texts import label_logits
from specdef.tasks.labelled import balanced, likeliest
from specdef.tasks.text.records import RecordError, text_field


@dataclass(frozen=True)
class LabelAccuracy:
    """Share of texts that get their label, each label weighing the same: who always gives one label gets one share."""

    rows: tuple[Labelled, ...]

    def __call__(self, model: Any, processor: Any) -> float:
        """Score a model; 0 when any logit is not finite, so that a broken model never scores by luck."""
        found = predicted(model, processor, [row.text for row in self.rows])
        return 0.0 if found is None else balanced(found, [row.label for row in self.rows])

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the score depends on, as JSON data."""
        return {"rows": [[row.text, row.label] for row in self.rows]}

    @property
    def chance(self) -> float:
        """What a model gets that knows nothing."""
        return 1 / len({row.label for row in self.rows})


def predicted(model: Any, processor: Any, texts: Sequence[str]) -> list[int] | None:
    """The label a classifier gives each text; None when any logit is not finite."""
    return likeliest(label_logits(model, processor, texts))


def labelled_record(fields: dict[str, Any]) -> Labelled:
    """A row of a user's file: ``text`` and ``label``, a whole number from 0.

    Raises:
        RecordError: it is not.
    """
    label = fields.get("label")
    if isinstance(label, bool) or not isinstance(label, int) or label < 0:
        raise RecordError(f"`label` must be a whole number from 0; got {label!r}")
    return Labelled(text_field(fields, "text"), label)
