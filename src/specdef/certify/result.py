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

import msgspec

from specdef.attacks.base import Attack
from specdef.attacks.wire import attack_from_wire
from specdef.certify.cell_result import CellResult, Measured, RewriteFacts
from specdef.certify.environment import Environment
from specdef.core.results import Records, brief
from specdef.core.schema import SchemaError, convert, plain
from specdef.training.outcome import Evaluation, Outcome, StopReason, evaluation_rows

VERSION = 2


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

    Attributes: as those of `Evaluation`; shares by class are left out where there are none.
    """

    step: int
    score: float
    utility: float | None
    loss: float | None = None
    by_group: tuple[float, ...] | None = None
    by_class: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    utility_by_class: dict[str, float] | msgspec.UnsetType = msgspec.UNSET

    def typed(self) -> Evaluation:
        """The evaluation."""
        utility = math.inf if self.utility is None else self.utility
        by_class, of_utility = self.by_class or None, self.utility_by_class or None
        return Evaluation(self.step, self.score, utility, self.loss, self.by_group, by_class, of_utility)


def point_of(found: Evaluation) -> Point:
    """An evaluation as it stands in files."""
    utility = found.utility if math.isfinite(found.utility) else None
    by_class, of_utility = (
        msgspec.UNSET if shares is None else dict(shares) for shares in (found.by_class, found.utility_by_class)
    )
    return Point(found.step, found.score, utility, found.loss, found.by_group, by_class, of_utility)


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
