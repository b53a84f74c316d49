"""What a study came to: one entry per attack on a defended model, over its seeds; read from finished cells."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from specdef.certify.environment import Environment
from specdef.certify.result import Point, StoredCell, point_of
from specdef.certify.statistics import mean, std
from specdef.core.results import Records, brief
from specdef.core.schema import SchemaError, convert, plain, read_object
from specdef.core.text import shown
from specdef.errors import SpecdefError
from specdef.training.outcome import Outcome

SCHEMA = 1
RESULTS = "results.json"
FIGURES = (
    "outcome",
    "steps",
    "steps_std",
    "score",
    "seeds",
    "seeds_broken",
    "seeds_diverged",
    "seeds_recovered",
    "note",
)
COSTS = ("rewrite_seconds", "added_parameters", "trained_parameters", "seconds_per_step", "peak_memory_bytes")


@dataclass(frozen=True)
class Cost:
    """What an attack cost, from its first seed that counts. None where it was not measured."""

    rewrite_seconds: float | None
    added_parameters: int | None
    trained_parameters: int | None
    seconds_per_step: float | None
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Entry:
    """One attack on one defended model, over all seeds.

    Attributes:
        attack: its label.
        outcome: broken where any seed reached the target; else the first seed's that counts; invalid or crashed where
            none counts.
        undoes: the attack takes a lock out of the weights before it trains.
        steps: mean steps to the target over the seeds that reached it; None when none did.
        steps_std: their population standard deviation.
        score: best score within the utility budget, mean over the seeds that count; None when none does.
        seeds: how many count.
        seeds_broken: how many reached the target.
        seeds_diverged: how many lost utility at some evaluation.
        seeds_recovered: how many regained it.
        note: why the first seed does not count, or "".
        cost: of the first seed.
        curve: of the first seed, evaluation by evaluation.
        cells: keys of the result files.
    """

    attack: str
    outcome: Outcome
    undoes: bool
    steps: float | None
    steps_std: float | None
    score: float | None
    seeds: int
    seeds_broken: int
    seeds_diverged: int
    seeds_recovered: int
    note: str
    cost: Cost
    curve: tuple[Point, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One defence, and every attack on it.

    Attributes:
        defence: its label.
        undefended: it changes nothing: the undefended model itself.
        entries: the attacks, in the study's order.
    """

    defence: str
    undefended: bool
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Table:
    """One model at one task.

    Attributes:
        model: its label.
        task: its label.
        reference: utility of the undefended model before training.
        utility: what utility was measured as.
        target: the score at which an attack has reached its aim.
        rows: the defences, in the study's order.
    """

    model: str
    task: str
    reference: float
    utility: str
    target: float
    rows: tuple[Row, ...]


@dataclass(frozen=True, repr=False)
class StudyResults(Records):
    """A finished study.

    Attributes:
        specdef_study_results: version of this form.
        title: the study's.
        rows: what stands in the rows of tables.
        seeds: how many.
        steps: of an ordinary attack.
        tables: model by model, task by task.
        certificates: folders of certificates, inside the study's, where it certifies.
        environment: the machine the study ended on.
        command: how the study is run again.
    """

    specdef_study_results: Literal[1]
    title: str
    rows: Literal["defences", "attacks"]
    seeds: int
    steps: int
    tables: tuple[Table, ...]
    certificates: tuple[str, ...]
    environment: Environment
    command: str | None = None

    def summary(self) -> dict[str, str]:
        """See `Result`."""
        found = self.records()
        lines = {
            f"{one['defence']}, {one['attack']}": f"{one['outcome']}, score {brief(one['score'])}" for one in found
        }
        return {"title": shown(self.title), "seeds": brief(self.seeds), "steps": brief(self.steps), **lines}

    def records(self) -> list[dict[str, Any]]:
        """A row an entry: one attack on one defended model."""
        found = []
        for table in self.tables:
            for row in table.rows:
                for entry in row.entries:
                    data = plain(entry)
                    what = {"model": table.model, "task": table.task, "defence": row.defence, "attack": entry.attack}
                    costs = {name: data["cost"][name] for name in COSTS}
                    found.append({**what, **{name: data[name] for name in FIGURES}, **costs})
        return found


def summarise(label: str, cells: Sequence[StoredCell]) -> Entry:
    """One attack's cells, a seed each, as an entry."""
    counting = [cell for cell in cells if cell.result.counts]
    broken = [cell for cell in counting if cell.result.is_broken]
    first = (broken or counting or list(cells))[0]
    steps = [float(cell.result.step) for cell in broken if cell.result.step is not None]
    return Entry(
        attack=label,
        outcome=first.result.outcome,
        undoes=cells[0].attack.undoes,
        steps=mean(steps),
        steps_std=std(steps),
        score=mean([cell.result.best.score for cell in counting if cell.result.best is not None]),
        seeds=len(counting),
        seeds_broken=len(broken),
        seeds_diverged=sum(cell.result.diverged_at is not None for cell in counting),
        seeds_recovered=sum(cell.result.recovered for cell in counting),
        note=next((cell.result.note for cell in cells if cell.result.note), ""),
        cost=_cost(cells[0]),
        curve=tuple(point_of(found) for found in cells[0].result.evaluations),
        cells=tuple(cell.key for cell in cells),
    )


def read_results(folder: Path) -> StudyResults:
    """The results of a study's folder.

    Raises:
        SpecdefError: there are none, or they are not as `run_study` writes them.
    """
    path = folder / RESULTS
    try:
        return convert(read_object(path), StudyResults)
    except OSError as error:
        raise SpecdefError(
            f"`folder` must hold results of `specdef run`; {shown(folder)} does not: {RESULTS} cannot be read "
            f"({error.strerror or error})."
        ) from error
    except SchemaError as error:
        raise SpecdefError(
            f"Result file {path} must be as `specdef run` writes it; it is not ({error}). Run the study again."
        ) from error


def results_to_wire(results: StudyResults) -> dict[str, Any]:
    """As JSON data."""
    return dict(plain(results))


def results_to_csv(results: StudyResults) -> str:
    """One line per entry."""
    file = io.StringIO()
    writer = csv.DictWriter(file, ["model", "task", "defence", "attack", *FIGURES, *COSTS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(results.records())
    return file.getvalue()


def _cost(cell: StoredCell) -> Cost:
    steps, measured = cell.result.steps, cell.measured
    added = [rewrite.added_parameters for rewrite in cell.result.rewrites]
    seconds = None if measured.train_seconds is None or not steps else round(measured.train_seconds / steps, 3)
    return Cost(
        rewrite_seconds=measured.rewrite_seconds,
        added_parameters=sum(added) if added else None,
        trained_parameters=cell.result.trained_parameters,
        seconds_per_step=seconds,
        peak_memory_bytes=measured.peak_memory_bytes,
    )
