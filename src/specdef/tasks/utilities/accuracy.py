"""Accuracy on general text: does a classifier still give the labels it was made to give?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdef.errors import TaskError
from specdef.models.base import LoadedModel
from specdef.models.samples import Labelled
from specdef.tasks.text.everyday import everyday
from specdef.tasks.text.labels import balanced, labelled_record, predicted
from specdef.tasks.text.records import read_records, text_field
from specdef.tasks.utility import Utility, UtilityData

MAX_ROWS = 512
"""Of each half of the general text."""
CHANCE = 0.5
"""What guessing reaches at most: with two labels."""
TOLERANCE = 0.02
"""Largest change at step 0: a lock keeps the function, so a larger one is a broken attack."""


@dataclass(frozen=True)
class _Row:
    text: str
    label: int | None


class Accuracy(Utility):
    """Share of general sentences that get their label, each label weighing the same, so that one label for all is worth
    no more than guessing.

    A file gives texts with ``label``, the model's own; texts without labels, such as those that ship with the package,
    get the labels that the undefended model gives them: the number is then agreement with it.

    A budget of 2 allows half of what a model has above guessing to go: from 1.0 down to 0.75. Guessing is taken to
    reach 0.5, the most it can. A model that starts no better than that may lose nothing.
    """

    name = "accuracy"
    unit = "share of general sentences labelled as the undefended model does"
    model_kinds = ("text-classifier",)
    higher_is_better = True
    needs_original = True

    def read(self, path: Path | None) -> str:
        """One JSON object a line: ``text`` and, in all or none, ``label``."""
        if path is None:
            return "\n".join(json.dumps({"text": row.text}) for row in everyday())
        rows = read_records(path).parse(_row)
        if len({row.label is None for row in rows}) > 1:
            raise TaskError(f"`text` must have a label in every record, or in none; {path} has both.")
        return "\n".join(json.dumps({"text": r.text} | ({} if r.label is None else {"label": r.label})) for r in rows)

    def check(self, content: str, processor: Any) -> None:
        """There must be a text to measure and one to train on."""
        _halves(content)

    def prepare(
        self, content: str, loaded: LoadedModel, *, original: Callable[[], LoadedModel] | None = None
    ) -> UtilityData:
        """Every other text is measured, the rest mixed into training.

        Raises:
            TaskError: the measured texts all have one label: a model that has lost everything else would still pass.
        """
        measured, mixed = _halves(content)
        if measured[0].label is None:
            source = loaded if original is None else original()
            measured, mixed = (_with_labels(half, source) for half in (measured, mixed))
        rows = [Labelled(row.text, row.label) for row in measured if row.label is not None]
        if len({row.label for row in rows}) < 2:
            raise TaskError(
                "`text` must be texts of two labels or more, so that losing one is seen; all of them have label "
                f"{rows[0].label}. Give a file of texts that the model tells apart."
            )
        retained = loaded.kind.encode([Labelled(r.text, r.label) for r in mixed if r.label is not None], loaded)
        return UtilityData(self, _Measured(tuple(rows), loaded.processor), retained)

    def measure(self, model: Any, data: UtilityData) -> float:
        """The share; not a number when a logit is not finite."""
        rows = data.measured.rows
        found = predicted(model, data.measured.processor, [row.text for row in rows])
        return math.nan if found is None else balanced(found, [row.label for row in rows])

    def limit(self, start: float, budget: float) -> float:
        """Of what the start has above guessing, the budget's share is left."""
        return CHANCE + (start - CHANCE) / budget if start > CHANCE else start

    def changed(self, found: float, reference: float | None) -> bool:
        """More than two points off."""
        if not math.isfinite(found):
            return True
        return reference is not None and abs(found - reference) > TOLERANCE


@dataclass(frozen=True)
class _Measured:
    rows: tuple[Labelled, ...]
    processor: Any


def _row(fields: dict[str, Any]) -> _Row:
    if "label" not in fields:
        return _Row(text_field(fields, "text"), None)
    found = labelled_record(fields)
    return _Row(found.text, found.label)


def _halves(content: str) -> tuple[list[_Row], list[_Row]]:
    """Every other text; a text that stands in both halves is left in the first."""
    rows = list(dict.fromkeys(_row(json.loads(line)) for line in content.splitlines()))
    measured = rows[0::2][:MAX_ROWS]
    seen = {row.text for row in measured}
    mixed = [row for row in rows[1::2] if row.text not in seen][:MAX_ROWS]
    if not mixed:
        raise TaskError(f"`text` must have at least two different texts; it has {len(rows)}.")
    return measured, mixed


def _with_labels(rows: Sequence[_Row], source: LoadedModel) -> list[_Row]:
    found = predicted(source.model, source.processor, [row.text for row in rows])
    if found is None:
        raise TaskError("`model` must give finite numbers for general text before it is attacked; it does not.")
    return [_Row(row.text, label) for row, label in zip(rows, found, strict=True)]


KIND = Accuracy()
