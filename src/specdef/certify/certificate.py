"""The certificate as a type: what was certified, what every threat model came to, and a row for every cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from specdef.attacks.base import Attack
from specdef.attacks.wire import recipe_from_wire
from specdef.certify.certified_cell import CertifiedCell, ControlFacts
from specdef.certify.environment import Environment
from specdef.certify.verdict import ThreatVerdict
from specdef.certify.verdict_kinds import Verdict
from specdef.core.results import Records, brief
from specdef.core.schema import plain
from specdef.core.text import counted, shown
from specdef.training.recipe import Recipe

VERSION = 2


@dataclass(frozen=True)
class ModelFacts:
    """A model: its folder's name, and the digest of every file that decides its function."""

    name: str
    digest: str


@dataclass(frozen=True)
class SubjectFacts(ModelFacts):
    """The model under test, with the kind of its lock: ``none`` without one, ``unknown`` without a manifest."""

    method: str = "unknown"


@dataclass(frozen=True)
class TaskFacts:
    """What was trained and scored.

    Attributes:
        name: as users type it.
        digest: of everything the task was made of.
        target: score at which an attack has reached its aim.
        chance: what guessing scores.
        samples: number of training samples; None where it was not recorded.
    """

    name: str
    digest: str
    target: float
    chance: float
    samples: int | None = None


@dataclass(frozen=True)
class UtilityFacts:
    """What a useful model must keep.

    Attributes:
        name: of the utility.
        unit: what its number is, in words.
        higher_is_better: which way it moves when a model is ruined.
        text_digest: of the general data.
        reference: utility of the undefended model; None where it was not measured.
        factor: the budget, as the user gave it.
        limit: the worst utility within the budget, from `reference` on; None without one.
    """

    name: str
    unit: str
    higher_is_better: bool
    text_digest: str
    reference: float | None
    factor: float
    limit: float | None


@dataclass(frozen=True)
class Calibration(ThreatVerdict):
    """What the undefended model came to, and the learning rates of the window at which it reached the target."""

    working_learning_rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class CellEnvironment(Environment):
    """The machine a certificate was made on, and the threads every cell had."""

    threads_per_cell: int | None = None


@dataclass(frozen=True, repr=False)
class Certificate(Records):
    """A finished certificate, as ``certificate.json`` holds it.

    Attributes:
        specdef_certificate: version of this form.
        subject: the model under test.
        original: the undefended model; the same digest where an unlocked model is certified.
        multiplier: alpha of the lock.
        multiplier_source: who says so.
        task: what was trained and scored.
        utility: what had to be kept.
        recipe: the ordinary recipe every attack varies from, as `specdef.attacks.wire` writes it.
        unlocked: what the undefended model came to.
        threat_models: threat model -> what it came to.
        cells: every cell, in the order of first use.
        not_tried: what no threat model tried.
        seeds: training seeds used.
        environment: where the certificate was made.
        seconds: wall time of this run; finished cells cost nothing.
        cell_seconds: time of all cells together.
        cell_environments: the machines, libraries and commits the cells come from.
        controls: what the form of the task alone is worth.
        command: how it was made; None where it was not recorded.
    """

    specdef_certificate: Literal[2]
    subject: SubjectFacts
    original: ModelFacts
    multiplier: float
    multiplier_source: str
    task: TaskFacts
    utility: UtilityFacts
    recipe: dict[str, Any]
    unlocked: Calibration
    threat_models: dict[str, ThreatVerdict]
    cells: tuple[CertifiedCell, ...]
    not_tried: tuple[str, ...]
    seeds: tuple[int, ...]
    environment: CellEnvironment
    seconds: float
    cell_seconds: float
    cell_environments: tuple[Environment, ...] = ()
    controls: tuple[ControlFacts, ...] = ()
    command: str | None = None

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Threat model -> verdict."""
        return {name: found.verdict for name, found in self.threat_models.items()}

    @property
    def is_unlocked(self) -> bool:
        """Whether the model under test is the undefended model itself."""
        return self.subject.digest == self.original.digest

    @cached_property
    def ordinary(self) -> Recipe:
        """The ordinary recipe."""
        return recipe_from_wire(self.recipe)

    @cached_property
    def by_key(self) -> Mapping[str, CertifiedCell]:
        """Key of a result file -> its row, the first of it."""
        return {row.cell: row for row in reversed(self.cells)}

    def summary(self) -> dict[str, str]:
        """See `Result`."""
        return {
            "model": f"{shown(self.subject.name)} ({self.subject.method}, multiplier {self.multiplier:g})",
            "original": shown(self.original.name),
            "task": f"{self.task.name}, target {self.task.target:g} (chance {self.task.chance:g})",
            "utility": f"{self.utility.name} {brief(self.utility.reference)}, limit {brief(self.utility.limit)}",
            "undefended": _in_words(self.unlocked),
            **{name: _in_words(found) for name, found in self.threat_models.items()},
            "cells": brief(len(self.cells)),
            "seeds": brief(self.seeds),
            "not tried": f"{brief(len(self.not_tried))} things; see not_tried",
        }

    def records(self) -> list[dict[str, Any]]:
        """A row a cell."""
        return [_row(cell) for cell in self.cells]

    def worst(self, found: ThreatVerdict) -> Attack | None:
        """The most successful attack of a threat model; None where nothing that counts was run."""
        return None if found.cell is None else self.by_key[found.cell].attack


def _in_words(found: ThreatVerdict) -> str:
    steps = "" if found.steps is None else f", {found.steps:.4g} steps to the target"
    score = "" if found.score is None else f", best score {found.score:.3f}"
    return f"{' '.join(map(brief, plain(found.verdict).values()))}{steps}{score}; {counted(found.num_cells, 'cell')}"


def _row(cell: CertifiedCell) -> dict[str, Any]:
    best, last, recipe = cell.best, cell.last, cell.attack.recipe
    return {
        "threat_model": cell.threat_model,
        "cell": cell.cell,
        "attack": cell.attack.label,
        "lr": recipe.lr,
        "seed": recipe.seed,
        "outcome": cell.outcome.value,
        "step": cell.step,
        "best_score": None if best is None else best.score,
        "best_utility": None if best is None else best.utility,
        "last_score": None if last is None else last.score,
        "last_utility": None if last is None else last.utility,
        "diverged_at": cell.diverged_at,
        "recovered": cell.recovered,
        "note": cell.note,
    }
