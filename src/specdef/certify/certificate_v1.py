"""Certificates of version 1, in which attacks and verdicts stood as words.

A row's words are not read: its attack and figures come from its cell's result file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from specdef.certify.cell import FIRST_UTILITY
from specdef.certify.certificate import (
    Calibration,
    CellEnvironment,
    Certificate,
    ModelFacts,
    SubjectFacts,
    TaskFacts,
    UtilityFacts,
)
from specdef.certify.certified_cell import certified, environments
from specdef.certify.result import StoredCell
from specdef.certify.verdict import ThreatVerdict
from specdef.certify.verdict_kinds import Broken, Held, HeldBy, NotMeasured, Slowed, Undone, Verdict
from specdef.core.schema import SchemaError, convert
from specdef.tasks.utility import UTILITIES

_WORDS: dict[str, Verdict] = {
    "broken": Broken(),
    "held by collapse": Held(HeldBy.COLLAPSE),
    "held by stall": Held(HeldBy.STALL),
    "not measured": NotMeasured(),
}
_NUMBER = r"(\d+(?:\.\d+)?)"


@dataclass(frozen=True)
class _Verdict1:
    verdict: str
    cell: str | None
    steps: float | None
    steps_std: float | None
    score: float | None
    utility: float | None
    seconds: float | None
    seeds: int
    seeds_broken: int
    diverged: Literal["none", "some", "all"]
    recovered: int
    num_cells: int
    num_invalid: int
    not_tried: tuple[str, ...]

    def figures(self) -> dict[str, Any]:
        """Fields that stand in version 2 under the same names, and the verdict."""
        return {name: getattr(self, name) for name in _Verdict1.__dataclass_fields__} | {
            "verdict": verdict_from_words(self.verdict)
        }


@dataclass(frozen=True)
class _Calibration1(_Verdict1):
    working_learning_rates: tuple[float, ...]


@dataclass(frozen=True)
class _Utility1:
    text_digest: str
    factor: float
    reference_perplexity: float | None


@dataclass(frozen=True)
class _Row1:
    threat_model: str
    cell: str


@dataclass(frozen=True)
class _File1:
    subject: SubjectFacts
    original: ModelFacts
    multiplier: float
    task: TaskFacts
    utility: _Utility1
    recipe: dict[str, Any]
    unlocked: _Calibration1
    threat_models: dict[str, _Verdict1]
    cells: tuple[_Row1, ...]
    not_tried: tuple[str, ...]
    seeds: tuple[int, ...]
    environment: CellEnvironment
    seconds: float
    cell_seconds: float
    multiplier_source: str = "unknown"
    command: str | None = None


def certificate_from_v1(data: Mapping[str, Any], cells: Mapping[str, StoredCell]) -> Certificate:
    """The certificate that a file of version 1 holds.

    Args:
        data: the file.
        cells: key -> finished cell; all that the certificate names.

    Raises:
        SchemaError: the data does not fit, or a cell is missing.
    """
    found = convert(data, _File1)
    missing = next((row.cell for row in found.cells if row.cell not in cells), None)
    if missing is not None:
        raise SchemaError(
            f"Expected the result file of every cell beside a certificate of version 1, {missing} has none"
        )
    utility = UTILITIES.get(FIRST_UTILITY)
    reference, factor = found.utility.reference_perplexity, found.utility.factor
    rows = tuple(certified(row.threat_model, cells[row.cell]) for row in found.cells)
    return Certificate(
        specdef_certificate=2,
        subject=found.subject,
        original=found.original,
        multiplier=found.multiplier,
        multiplier_source=found.multiplier_source,
        task=found.task,
        utility=UtilityFacts(
            utility.name,
            utility.unit,
            utility.higher_is_better,
            found.utility.text_digest,
            reference,
            factor,
            None if reference is None else utility.limit(reference, factor),
        ),
        recipe=found.recipe,
        unlocked=Calibration(**found.unlocked.figures(), working_learning_rates=found.unlocked.working_learning_rates),
        threat_models={name: ThreatVerdict(**entry.figures()) for name, entry in found.threat_models.items()},
        cells=rows,
        not_tried=found.not_tried,
        seeds=found.seeds,
        environment=found.environment,
        seconds=found.seconds,
        cell_seconds=found.cell_seconds,
        cell_environments=environments(cells[row.cell] for row in found.cells),
        command=found.command,
    )


def verdict_from_words(text: str) -> Verdict:
    """The verdict that version 1 wrote as words.

    Raises:
        SchemaError: the text is no verdict.

    Example:
        >>> verdict_from_words("slowed x2.5"), verdict_from_words("held by collapse")
        (Slowed(factor=2.5), Held(by=<HeldBy.COLLAPSE: 'collapse'>))
    """
    if text in _WORDS:
        return _WORDS[text]
    if found := re.fullmatch(f"slowed x{_NUMBER}", text):
        return Slowed(float(found[1]))
    if found := re.fullmatch(f"undone in {_NUMBER} seconds with no training", text):
        return Undone(float(found[1]))
    raise SchemaError(f"Expected a verdict of version 1, got {text[:60]!r}")
