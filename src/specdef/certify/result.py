"""Finished cells as types, and the one reader and writer of their files.

Files of version 1 (no version number; committed results are of it) call utility "perplexity", since no other was known.
Files are written in version 2. A number that is not finite is ``null`` in both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from specdef.attacks.base import Attack
from specdef.attacks.wire import attack_from_wire
from specdef.certify.environment import Environment
from specdef.core.results import Records, brief
from specdef.core.schema import SchemaError, convert, plain
from specdef.training.outcome import Evaluation, Outcome, StopReason, evaluation_rows

VERSION = 2


@dataclass(frozen=True)
class RewriteFacts:
    """What an attack that rewrites weights did before training.

    Attributes:
        kind: name of the intervention.
        tensors: how many were changed.
        added_parameters: numbers the model has more than before; negative where it has fewer.
        detail: what was done, in words.
        knowledge: what an attacker must know for it, besides the published folder.
    """

    kind: str
    tensors: int
    added_parameters: int
    detail: str
    knowledge: str


@dataclass(frozen=True)
class CellResult:
    """What an attack came to: the same on every run.

    Attributes:
        outcome: see `Outcome`.
        step: where the target was first reached within the utility budget; None when it was not.
        best: the evaluation with the highest score within the utility budget; None where nothing was measured.
        diverged_at: first evaluation with utility outside the budget; None when there was none.
        recovered: utility was lost and later regained.
        reason: why the loop ended; None where it never began.
        steps: optimizer steps done.
        trained_parameters: how many numbers were trained; None where nothing was.
        note: why the run does not count, or "".
        evaluations: every measurement, step 0 first.
        rewrites: what was done to the weights before training, in order.
    """

    outcome: Outcome
    step: int | None = None
    best: Evaluation | None = None
    diverged_at: int | None = None
    recovered: bool = False
    reason: StopReason | None = None
    steps: int = 0
    trained_parameters: int | None = None
    note: str = ""
    evaluations: tuple[Evaluation, ...] = ()
    rewrites: tuple[RewriteFacts, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether the attack reached its target within the utility budget."""
        return self.outcome is Outcome.BROKEN

    @property
    def counts(self) -> bool:
        """Whether the cell says anything about the defence."""
        return self.outcome.counts


@dataclass(frozen=True)
class Measured:
    """What a cell's identity does not hold, or only as a digest. None where it was not measured or noted.

    Attributes:
        seconds: of the whole attack.
        train_seconds: in training steps only.
        peak_memory_bytes: of the process, or of the GPU.
        environment: the machine.
        rewrite_seconds: of rewriting weights before training.
        subject_name: what people call the model.
        train: the file that was trained on, as the user gave it.
        eval: the file that was asked.
        text: the general data's file.
        scorer: what counted as success, where the user said so.
        target: the score to reach.
    """

    seconds: float | None = None
    train_seconds: float | None = None
    peak_memory_bytes: int | None = None
    environment: Environment | None = None
    rewrite_seconds: float | None = None
    subject_name: str | None = None
    train: str | None = None
    eval: str | None = None
    text: str | None = None
    scorer: str | None = None
    target: float | None = None


@dataclass(frozen=True)
class FinishedCell:
    """What running a cell gives."""

    result: CellResult
    measured: Measured


@dataclass(frozen=True, repr=False)
class StoredCell(Records):
    """A finished cell: its configuration (`Cell.identity`), what it came to, and what was measured on the way."""

    key: str
    config: dict[str, Any]
    result: CellResult
    measured: Measured

    @cached_property
    def attack(self) -> Attack:
        """The attack that the configuration describes."""
        return attack_from_wire(self.config["attack"])

    def summary(self) -> dict[str, str]:
        """See `Result`."""
        result, end = self.result, self.result.evaluations[-1] if self.result.evaluations else None
        return {
            "cell": self.key,
            "task": brief(self.config.get("task")),
            "attack": self.attack.label,
            "outcome": brief(result.outcome),
            "step of the target": brief(result.step),
            "steps": brief(result.steps),
            "best score in the budget": brief(result.best.score if result.best else None),
            "score at the end": brief(end.score if end else None),
            "utility": "-" if end is None else f"{brief(result.evaluations[0].utility)} -> {brief(end.utility)}",
            "utility lost at": brief(result.diverged_at),
            "seconds": brief(self.measured.seconds),
            **({"note": result.note} if result.note else {}),
        }

    def to_dict(self) -> dict[str, Any]:
        """As its result file holds it."""
        return cell_to_wire(self)

    def records(self) -> list[dict[str, Any]]:
        """A row an evaluation."""
        return evaluation_rows(self.result.evaluations)


def crashed(note: str) -> FinishedCell:
    """What is stored for a cell whose process died: an outcome of its own, never `held`, and tried again."""
    return FinishedCell(CellResult(Outcome.CRASHED, note=note), Measured())


def refused(note: str) -> FinishedCell:
    """What is stored for an attack that this model cannot be given, such as adapters on layers it has not."""
    return FinishedCell(CellResult(Outcome.INVALID, note=note), Measured())


@dataclass(frozen=True)
class _Point1:
    """An evaluation in a file of version 1."""

    step: int
    score: float
    perplexity: float | None
    loss: float | None = None

    def typed(self) -> Evaluation:
        return Evaluation(self.step, self.score, math.inf if self.perplexity is None else self.perplexity, self.loss)


@dataclass(frozen=True)
class Point:
    """An evaluation in a file: a utility or loss that was no finite number is None.

    Attributes: as those of `Evaluation`.
    """

    step: int
    score: float
    utility: float | None
    loss: float | None = None
    by_group: tuple[float, ...] | None = None

    def typed(self) -> Evaluation:
        """The evaluation."""
        utility = math.inf if self.utility is None else self.utility
        return Evaluation(self.step, self.score, utility, self.loss, self.by_group)


def point_of(found: Evaluation) -> Point:
    """An evaluation as it stands in files."""
    utility = found.utility if math.isfinite(found.utility) else None
    return Point(found.step, found.score, utility, found.loss, found.by_group)


PointT = TypeVar("PointT", _Point1, Point)


@dataclass(frozen=True)
class _Result(Generic[PointT]):
    outcome: Outcome
    step: int | None
    best: PointT | None
    diverged_at: int | None
    recovered: bool
    reason: str | None
    steps: int
    trained_parameters: int | None
    note: str
    evaluations: list[PointT]

    def typed(self, rewrites: Sequence[RewriteFacts]) -> CellResult:
        reason = None
        with suppress(ValueError):  # version 1 repeats a crash's note here
            reason = StopReason(self.reason)
        return CellResult(
            self.outcome,
            self.step,
            None if self.best is None else self.best.typed(),
            self.diverged_at,
            self.recovered,
            reason,
            self.steps,
            self.trained_parameters,
            self.note,
            tuple(point.typed() for point in self.evaluations),
            tuple(rewrites),
        )


@dataclass(frozen=True)
class _Result1(_Result[_Point1]):
    rewrite: RewriteFacts | None = None


@dataclass(frozen=True)
class _Result2(_Result[Point]):
    rewrites: tuple[RewriteFacts, ...] = ()


@dataclass(frozen=True)
class _Measured1:
    seconds: float | None
    train_seconds: float | None
    peak_memory_bytes: int | None
    rewrite_seconds: float | None = None
    hardware: str | None = None
    python: str | None = None
    libraries: dict[str, str] | None = None
    commit: str | None = None

    def typed(self) -> Measured:
        known = self.hardware or self.python or self.libraries
        where = Environment(self.hardware, self.python, self.libraries or {}, self.commit) if known else None
        return Measured(self.seconds, self.train_seconds, self.peak_memory_bytes, where, self.rewrite_seconds)


@dataclass(frozen=True)
class _File1:
    cell: str
    config: dict[str, Any]
    result: _Result1
    measured: _Measured1


@dataclass(frozen=True)
class _File2:
    schema: int
    cell: str
    config: dict[str, Any]
    result: _Result2
    measured: Measured


def cell_from_wire(data: Mapping[str, Any]) -> StoredCell:
    """A finished cell from the JSON data of its file, of either version.

    Raises:
        SchemaError: the data does not fit; the text names the place.
    """
    version = data.get("schema", 1)
    if version == 1:
        first = convert(data, _File1)
        rewrites = () if first.result.rewrite is None else (first.result.rewrite,)
        found = StoredCell(first.cell, first.config, first.result.typed(rewrites), first.measured.typed())
    elif version == VERSION:
        second = convert(data, _File2)
        found = StoredCell(second.cell, second.config, second.result.typed(second.result.rewrites), second.measured)
    else:
        raise SchemaError(f"Expected version 1 or {VERSION}, got {version!r} - at `$.schema`")
    _require_whole(found)
    return found


def _require_whole(cell: StoredCell) -> None:
    """Raise SchemaError for values of the right type that say nothing."""
    result = cell.result
    if "attack" not in cell.config:
        raise SchemaError("Object missing required field `attack` - at `$.config`")
    if result.counts and (result.best is None or not result.evaluations):
        raise SchemaError("Expected evaluations and the best of them in a run that counts - at `$.result`")
    if result.is_broken and result.step is None:
        raise SchemaError("Expected the step at which the target was reached, got `null` - at `$.result.step`")


def cell_to_wire(cell: StoredCell) -> dict[str, Any]:
    """The JSON data of a finished cell's file, in the version of today."""
    return {
        "schema": VERSION,
        "cell": cell.key,
        "config": cell.config,
        "result": {
            **plain(cell.result),
            "best": None if cell.result.best is None else plain(point_of(cell.result.best)),
            "evaluations": [plain(point_of(found)) for found in cell.result.evaluations],
        },
        "measured": plain(cell.measured),
    }
