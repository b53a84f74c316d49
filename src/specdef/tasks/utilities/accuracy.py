"""Accuracy on general text: does a classifier still give the labels it was made to give?"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from specdef.errors import TaskError
from specdef.models.base import Batch, LoadedModel
from specdef.models.samples import Labelled, LabelledPair
from specdef.tasks.labelled import balanced, by_class
from specdef.tasks.text.everyday import everyday
from specdef.tasks.text.labels import labelled_record, predicted
from specdef.tasks.text.records import read_records
from specdef.tasks.utility import Utility, UtilityData

MAX_ROWS = 512
"""Of each half of the general text."""
UNKNOWN = -1
"""Stands for the label that the undefended model gives."""
CHANCE = 0.5
"""What guessing reaches at most: with two labels."""
TOLERANCE = 0.02
"""Largest change at step 0: a lock keeps the function, so a larger one is a broken attack."""


class Accuracy(Utility):
    """Share of general sentences that get their label, each label weighing the same, so that one label for all is worth
    no more than guessing.

    A file gives texts with ``label``, the model's own, and with ``pair`` where the model reads two. Texts without
    labels, such as those that ship with the package, get the labels that the undefended model gives them: the number
    is then agreement with it.

    What a row is, how it is read and asked are `parse` and `predicted`: `ImageAccuracy` overrides them.

    A budget of 2 allows half of what a model has above guessing to go: from 1.0 down to 0.75. Guessing is taken to
    reach 0.5, the most it can. A model that starts no better than that may lose nothing.
    """

    name = "accuracy"
    unit = "share of general sentences labelled as the undefended model does"
    model_kinds = ("text-classifier",)
    higher_is_better = True
    needs_original = True
    rows_name: ClassVar[str] = "texts"
    general_name: ClassVar[str] = "general text"

    def read(self, path: Path | None) -> str:
        """One JSON object a line, in an order drawn by a seed: ``text`` and, in all or none, ``pair`` and ``label``."""
        if path is None:
            return "\n".join(json.dumps({"text": row.text}) for row in everyday())
        rows = read_records(path).parse(_labelled)
        if len({row.label == UNKNOWN for row in rows}) > 1:
            raise TaskError(f"`text` must have a label in every record, or in none; {path} has both.")
        if len({isinstance(row, LabelledPair) for row in rows}) > 1:
            raise TaskError(f"`text` must have a pair in every record, or in none; {path} has both.")
        return "\n".join(json.dumps(_fields(row)) for row in drawn(rows))

    def check(self, content: str, processor: Any) -> None:
        """There must be a row to measure and one to train on."""
        self._halves(content)

    def prepare(
        self, content: str, loaded: LoadedModel, *, original: Callable[[], LoadedModel] | None = None
    ) -> UtilityData:
        """Every other row is measured, the rest mixed into training.

        Raises:
            TaskError: the measured rows all have one label: a model that has lost everything else would still pass.
        """
        measured, mixed = self._halves(content)
        if measured[0].label == UNKNOWN:
            source = loaded if original is None else original()
            measured, mixed = (self._with_labels(half, source) for half in (measured, mixed))
        if len({row.label for row in measured}) < 2:
            raise TaskError(
                f"`text` must be {self.rows_name} of two labels or more, so that losing one is seen; all of them have "
                f"label {measured[0].label}. Give a file of {self.rows_name} that the model tells apart."
            )
        return UtilityData(self, _Measured(tuple(measured), loaded.processor), loaded.kind.encode(mixed, loaded))

    def measure(self, model: Any, data: UtilityData) -> float:
        """The share; not a number when a logit is not finite."""
        return self.measure_by_class(model, data)[0]

    def measure_by_class(self, model: Any, data: UtilityData) -> tuple[float, dict[str, float] | None]:
        """See `Utility`: the share of every label, whose mean is the utility."""
        rows = data.measured.rows
        found = self.predicted(model, data.measured.processor, rows)
        if found is None:
            return math.nan, None
        wanted = [row.label for row in rows]
        return balanced(found, wanted), by_class(found, wanted)

    def parse(self, line: str) -> Any:
        """A row of what `read` gave; its label is `UNKNOWN` where it has none."""
        return _labelled(json.loads(line))

    def predicted(self, model: Any, processor: Any, rows: Sequence[Any]) -> list[int] | None:
        """The label a classifier gives each row; None when any logit is not finite."""
        return predicted(model, processor, [row.read for row in rows])

    def training_rows(self, content: str, loaded: LoadedModel, data: UtilityData) -> Batch | None:
        """Every row that is not measured, however many there are."""
        mixed = self._halves(content, most=None)[1]
        return loaded.kind.encode(self._with_labels(mixed, loaded) if mixed[0].label == UNKNOWN else mixed, loaded)

    def _halves(self, content: str, *, most: int | None = MAX_ROWS) -> tuple[list[Any], list[Any]]:
        """Every other row, at most `most` in each half; one that stands in both halves, whatever its label, is left in
        the first."""
        rows = list(dict.fromkeys(map(self.parse, content.splitlines())))
        measured = rows[0::2][:MAX_ROWS]
        seen = {replace(row, label=UNKNOWN) for row in measured}
        mixed = [row for row in rows[1::2] if replace(row, label=UNKNOWN) not in seen][:most]
        if not mixed:
            raise TaskError(f"`text` must have at least two different {self.rows_name}; it has {len(rows)}.")
        return measured, mixed

    def _with_labels(self, rows: Sequence[Any], source: LoadedModel) -> list[Any]:
        found = self.predicted(source.model, source.processor, rows)
        if found is None:
            raise TaskError(
                f"`model` must give finite numbers for {self.general_name} before it is attacked; it does not."
            )
        return [replace(row, label=label) for row, label in zip(rows, found, strict=True)]

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
    rows: tuple[Any, ...]
    processor: Any


def drawn(rows: Sequence[Any]) -> list[Any]:
    """The rows in an order drawn by a seed: a file has its labels one after the other, or in turn, and what is measured
    must have its share of each."""
    return random.Random(0).sample(rows, len(rows))


def _labelled(fields: dict[str, Any]) -> Labelled:
    return labelled_record(fields, unlabelled=UNKNOWN)


def _fields(row: Labelled) -> dict[str, Any]:
    second = {"pair": row.second} if isinstance(row, LabelledPair) else {}
    return {"text": row.text, **second, **({} if row.label == UNKNOWN else {"label": row.label})}


KIND = Accuracy()
