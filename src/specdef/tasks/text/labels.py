"""Scores of text classifiers: labels given rightly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

from specdef.models.samples import Labelled, LabelledPair
from specdef.models.texts import Text, label_logits
from specdef.tasks.confusion import SCORERS, label_score
from specdef.tasks.labelled import likeliest
from specdef.tasks.score import Score
from specdef.tasks.text.records import RecordError, text_field


@dataclass(frozen=True)
class LabelScore:
    """How well a classifier labels some texts.

    Attributes:
        rows: the texts and their labels.
        scorer: ``accuracy``, each label weighing the same, so that who always gives one label gets one share; ``f1``;
            or ``matthews``.
        groups: per row, what it belongs to: rows of a group stand or fall together. None where no error is told.
    """

    rows: tuple[Labelled, ...]
    scorer: str = "accuracy"
    groups: tuple[Hashable, ...] | None = None

    def __call__(self, model: Any, processor: Any) -> Score:
        """Score a model; 0 when any logit is not finite, so that a broken model never scores by luck."""
        found = predicted(model, processor, [row.read for row in self.rows])
        groups = range(len(self.rows)) if self.groups is None else self.groups
        if found is None:
            score = Score(0.0, (0.0,) * len(set(groups)))
        else:
            score = label_score(SCORERS[self.scorer].measure, found, [row.label for row in self.rows], groups)
        return score if self.groups is not None else replace(score, by_group=None)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the score depends on, as JSON data."""
        scorer = {} if self.scorer == "accuracy" else {"scorer": self.scorer}
        return {"rows": [list(astuple(row)) for row in self.rows], **scorer}

    @property
    def chance(self) -> float:
        """What a model gets at most that does not read: 0 for Matthews' correlation."""
        counts = Counter(row.label for row in self.rows)
        return SCORERS[self.scorer].chance([counts[label] for label in sorted(counts)])


def predicted(model: Any, processor: Any, texts: Sequence[Text]) -> list[int] | None:
    """The label a classifier gives each text; None when any logit is not finite."""
    return likeliest(label_logits(model, processor, texts))


def labelled_record(fields: dict[str, Any], *, unlabelled: int) -> Labelled:
    """A row of a user's file: ``text``, ``pair`` for a model that reads two, ``label``, a whole number from 0.

    Args:
        fields: the record.
        unlabelled: stands for the label of a record that has none.

    Raises:
        RecordError: a field is not of that form.
    """
    label = fields.get("label")
    if "label" not in fields:
        label = unlabelled
    elif isinstance(label, bool) or not isinstance(label, int) or label < 0:
        raise RecordError(f"`label` must be a whole number from 0; got {label!r}")
    text = text_field(fields, "text")
    return LabelledPair(text, label, text_field(fields, "pair")) if "pair" in fields else Labelled(text, label)
