"""Finished attacks as rows: one set of columns for CSV, LaTeX and the page of a folder."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from specdef.certify.cell import CellConfig
from specdef.certify.result import StoredCell
from specdef.core.text import rate
from specdef.report import phrases
from specdef.report.form import number
from specdef.report.kind import LOOKS, Kind
from specdef.report.latex import latex_table

COLUMNS = (
    *("model", "task", "train file", "eval file", "attack", "lr", "seed", "outcome", "step", "target"),
    *("best score", "score at the end", "utility", "utility at the end", "seconds", "cell"),
)
SHORT = ("model", "attack", "lr", "seed", "outcome", "step", "best score", "score at the end")
"""Those that fit a page of a paper."""


def run_row(cell: StoredCell) -> dict[str, object]:
    """One attack by the names of `COLUMNS`; None where there is no value, numbers as they were measured."""
    result, measured = cell.result, cell.measured
    end = result.evaluations[-1] if result.evaluations else None
    task = CellConfig.from_wire(cell.config).task
    return {
        "model": measured.subject_name or str(cell.config["model"])[:8],
        "task": task,
        "train file": measured.train,
        "eval file": measured.eval,
        "attack": cell.attack.label_without_rate,
        "lr": cell.attack.recipe.lr,
        "seed": cell.attack.recipe.seed,
        "outcome": outcome_words(cell),
        "step": result.step,
        "target": measured.target,
        "best score": None if result.best is None else result.best.score,
        "score at the end": None if end is None else end.score,
        "utility": None if result.best is None else _finite(result.best.utility),
        "utility at the end": None if end is None else _finite(end.utility),
        "seconds": measured.seconds,
        "cell": cell.key,
    }


def kind_of(cell: StoredCell) -> Kind:
    """How a run is coloured and named."""
    return Kind.REGAINED if cell.result.is_broken and cell.result.recovered else Kind[cell.result.outcome.name]


def is_compared(cell: StoredCell) -> bool:
    """Whether a run that did not reach the target says anything of a defence: it is of another model than the
    undefended one."""
    if cell.measured.compared is not None:
        return cell.measured.compared
    config = CellConfig.from_wire(cell.config)
    return config.original != config.model and (config.original is not None or config.reference is not None)


def outcome_words(cell: StoredCell) -> str:
    """How a run ended; of a model with nothing undefended to be compared with, never that it held."""
    unbroken = cell.result.counts and not cell.result.is_broken
    return phrases.NOT_REACHED if unbroken and not is_compared(cell) else phrases.kind(kind_of(cell))


def look_of(cell: StoredCell) -> str:
    """The class of the pages' style sheet that goes with `outcome_words`."""
    return "none" if outcome_words(cell) == phrases.NOT_REACHED else LOOKS[kind_of(cell)]


def runs_csv(cells: Sequence[StoredCell]) -> str:
    """One line a run, every column."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in cells:
        writer.writerow("" if value is None else value for value in run_row(cell).values())
    return file.getvalue()


def runs_latex(cells: Sequence[StoredCell]) -> str:
    """The columns of `SHORT`, a row a run, in the rules of booktabs."""
    rows = [run_texts(cell) for cell in cells]
    return latex_table(SHORT, [[row[name] for name in SHORT] for row in rows], "Attacks, one a row.")


def run_texts(cell: StoredCell) -> dict[str, str]:
    """`run_row` as people read it."""
    return {name: _text(name, value) for name, value in run_row(cell).items()}


def _text(name: str, value: object) -> str:
    if value is None:
        return "—"
    if name == "lr" and isinstance(value, float):
        return rate(value)
    return number(value) if isinstance(value, float) else str(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
