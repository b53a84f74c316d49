"""What an attack did to each class of a classifier: the task's rows, and the general data's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from specdef.certify.result import StoredCell
from specdef.report.form import number
from specdef.report.html import table
from specdef.training.outcome import Evaluation

MOST, MOST_ROWS = 12, 50
"""Classes that a line of text names, and a table."""


@dataclass(frozen=True)
class ClassShares:
    """Shares of the rows of each class that got its label. A run without labels has none.

    Attributes:
        of: whose rows: ``the task`` or ``general data``.
        before: label -> share before training.
        best: at the best score within the utility budget; None where there is none.
        end: after the last step; None where a number was not finite.
    """

    of: str
    before: Mapping[str, float]
    best: Mapping[str, float] | None
    end: Mapping[str, float] | None

    @property
    def rows(self) -> list[tuple[str, str, str, str]]:
        """Label, share before, at the best, at the end; a dash where there is none."""
        return [
            (label, number(share), _shown(self.best, label), _shown(self.end, label))
            for label, share in self.before.items()
        ]

    @property
    def changed_most(self) -> list[tuple[str, str, str, str]]:
        """The first `MOST_ROWS` of `rows`, those that changed most first where there are more."""
        if len(self.before) <= MOST_ROWS:
            return self.rows
        end = self.end or {}
        order = sorted(self.rows, key=lambda row: -abs(end.get(row[0], 0.0) - self.before[row[0]]))
        return order[:MOST_ROWS]

    @property
    def caption(self) -> str:
        """What a table of `changed_most` holds."""
        found = f"Share of each class of {self.of} that got its label"
        left_out = len(self.before) > MOST_ROWS
        return found + (f": the {MOST_ROWS} of {len(self.before)} that changed most" if left_out else "")

    @property
    def sentence(self) -> str:
        """One line, however many classes there are."""
        if len(self.before) > MOST:
            return f"By class of {self.of}: {len(self.before)} classes, see the page."
        found = [f"{label}: {before} -> {end}" for label, before, _, end in self.rows]
        return f"By class of {self.of}, before -> at the end: {', '.join(found)}."


def class_shares(cell: StoredCell) -> list[ClassShares]:
    """Of the task and of the general data, where they have classes."""
    result = cell.result
    if not result.evaluations:
        return []
    points = (result.evaluations[0], result.best, result.evaluations[-1])
    found = []
    for of, name in (("the task", "by_class"), ("general data", "utility_by_class")):
        before, best, end = (_shares(point, name) for point in points)
        if before is not None:
            found.append(ClassShares(of, before, best, end))
    return found


def class_tables(cell: StoredCell) -> str:
    """The same as tables of a page; empty where there are no classes."""
    names = ("class", "before", "at the best score", "at the end")
    return "\n".join(table(names, found.changed_most, found.caption) for found in class_shares(cell))


def _shares(point: Evaluation | None, name: str) -> Mapping[str, float] | None:
    return None if point is None else getattr(point, name)


def _shown(found: Mapping[str, float] | None, label: str) -> str:
    return "—" if found is None or label not in found else number(found[label])
