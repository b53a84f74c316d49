"""Every cell of a certificate in its page: how it ended, its evaluations, and its result file."""

from __future__ import annotations

import math
from collections.abc import Sequence

from specdef.certify.certificate import Certificate
from specdef.certify.certified_cell import CertifiedCell
from specdef.certify.result import StoredCell
from specdef.core.text import counted
from specdef.report import phrases
from specdef.report.classes import class_tables
from specdef.report.entries import Entry, slowed_from
from specdef.report.form import number, plain, seconds
from specdef.report.html import linked, table, text
from specdef.report.kind import LOOKS, Kind
from specdef.report.links import Link, place


def cell_entries(certificate: Certificate, cells: Sequence[StoredCell], link: Link) -> str:
    """One entry a cell, those of a threat model together.

    Args:
        certificate: whose cells they are.
        cells: their result files.
        link: to the result files.
    """
    files = {cell.key: cell for cell in cells}
    groups: dict[str, list[CertifiedCell]] = {}
    for one in certificate.cells:
        groups.setdefault(one.threat_model, []).append(one)
    parts = []
    missing = len({one.cell for one in certificate.cells} - set(files))
    if missing:
        lacking = f"The result files of {counted(missing, 'cell')} are not in this folder"
        parts.append(f'<p class="note">{lacking}; their evaluations are missing below.</p>')
    placed: set[str] = set()
    for name, rows in groups.items():
        compared = slowed_from(certificate, name)
        parts.append(f"<h3>{text(phrases.titled(name))} ({counted(len(rows), 'cell')})</h3>")
        for one in rows:
            anchor = "" if one.cell in placed else f' id="{place(one.cell)}"'
            placed.add(one.cell)
            summary = _summary(one, Entry((one,), compared).kind)
            cell = files.get(one.cell)
            rest = "" if cell is None else _evaluations(certificate, cell)
            said = text(_said(one, cell))
            file = link(one.cell)
            read = "" if file is None else f" {linked(file, phrases.THE_FILE)}"
            parts.append(f"<details{anchor}>{summary}\n<p>{said}{read}</p>\n{rest}</details>")
    return "\n".join(parts)


def _summary(found: CertifiedCell, kind: Kind) -> str:
    word, look = phrases.SHORT[kind], LOOKS[kind]
    if found.undefended and found.outcome.counts:
        word, look = phrases.NOT_REACHED if found.step is None else phrases.REACHED, "none"
    name = f"{phrases.attack(found.attack)}, seed {found.attack.recipe.seed}"
    return f'<summary><span class="badge {look}">{text(word)}</span> {text(name)}</summary>'


def _said(found: CertifiedCell, cell: StoredCell | None) -> str:
    said = [f"Cell {found.cell}.", f"Attack: {plain(found.attack.label)}."]
    if found.step is not None:
        said.append(f"Target reached at step {found.step}.")
    elif found.best is not None:
        said.append(f"Best score within the utility budget: {number(found.best.score)}.")
    if found.diverged_at is not None:
        said.append(f"Utility lost at step {found.diverged_at}{', regained later' if found.recovered else ''}.")
    if found.note:
        said.append(f"Note: {found.note}.")
    if cell is not None:
        said.append(
            f"Ended: {cell.result.reason.value if cell.result.reason else cell.result.note}. "
            f"Training took {seconds(cell.measured.train_seconds)}."
        )
    return " ".join(said)


def _evaluations(certificate: Certificate, cell: StoredCell) -> str:
    if not cell.result.evaluations:
        return "<p>No evaluations.</p>"

    def shown(value: float | None) -> str:
        return "—" if value is None else number(value)

    rows = [
        (
            str(point.step),
            number(point.score),
            number(point.utility) if math.isfinite(point.utility) else "not finite",
            shown(point.loss),
        )
        for point in cell.result.evaluations
    ]
    found = table(("step", "score", certificate.utility.name, "loss of the step"), rows, "Evaluations")
    return "\n".join(part for part in (found, class_tables(cell)) if part)
