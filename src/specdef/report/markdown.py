"""Certificates in Markdown and in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from specdef.certify.certificate import Certificate
from specdef.certify.result import StoredCell
from specdef.certify.verdict_kinds import is_open
from specdef.core.text import counted, rate
from specdef.report import phrases
from specdef.report.entries import PaperTable, paper_tables
from specdef.report.form import plain
from specdef.report.invariant import INVARIANT, invariant_attackers
from specdef.report.outside import OUTSIDE, outside_budget
from specdef.report.provenance import provenance
from specdef.report.sentences import (
    LEGEND,
    command,
    headline,
    not_tried,
    verdict_columns,
    verdict_rows,
    verdict_sentences,
)


def markdown(certificate: Certificate, cells: Sequence[StoredCell]) -> str:
    """The certificate as a Markdown document.

    Args:
        certificate: what `read_certificate` gave.
        cells: what `read_cells` gave.
    """
    name = certificate.subject.name
    numbers = {row.cell for row in certificate.cells}
    parts = [f"# Certificate: {_md(name)}", f"**{_md(headline(certificate))}**"]
    parts += ["\n".join(f"- {_md(verdict_sentences(certificate, model))}" for model in certificate.threat_models)]
    parts += ["## Verdict", _md_table(verdict_columns(certificate), verdict_rows(certificate))]
    outside = outside_budget(certificate, cells)
    if outside:
        parts += ["## Target reached outside the utility budget", OUTSIDE]
        parts += ["\n".join(f"- {_md(what)}" for what in outside)]
    invariant = invariant_attackers(certificate)
    if invariant:
        parts += ["## Invariant attackers", INVARIANT, "\n".join(f"- {_md(what)}" for what in invariant)]
    parts += ["## Steps to the target by learning rate", _md(LEGEND)]
    for table in paper_tables(certificate):
        parts += [f"### {_md(table_title(table))}", _md_paper(table)]
    parts += ["## What was not tried", "\n".join(f"- {_md(what)}" for what in not_tried(certificate))]
    parts += ["## How to reproduce", _md_command(certificate)]
    parts += ["## Provenance", _md_table(("what", "value"), provenance(certificate))]
    parts += [f"{counted(len(numbers), 'cell')}, {counted(len(cells), 'result file')}."]
    return "\n\n".join(filter(None, parts)) + "\n"


def table_title(table: PaperTable) -> str:
    """Heading of a paper-form table."""
    return phrases.titled(table.name)


def _md_paper(table: PaperTable) -> str:
    if not table.entries:
        return "No cells were run."
    rows = []
    for attack in table.attacks:
        found = [table.entries.get((attack, lr)) for lr in table.rates]
        rows.append((phrases.attack_without_rate(attack), *("" if entry is None else entry.text for entry in found)))
    return _md_table(("attack", *(f"lr {rate(lr)}" for lr in table.rates)), rows)


def _md_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_md(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _md_command(certificate: Certificate) -> str:
    found = command(certificate)
    if found is None:
        return "The command was not recorded; the recipe below and the digests decide every result."
    return f"    {found}"


def _md(text: str) -> str:
    """Text that Markdown shows as it is: names in a certificate come from whoever made the model."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|~#!$" else c for c in plain(text))
    return escaped.replace("&", "&amp;").replace("://", ":&#47;/").replace("www.", "www&#46;")


def verdict_table(certificate: Certificate) -> Table:
    """The verdict for the terminal."""
    table = Table(title=Text(headline(certificate)), title_justify="left")
    for name in verdict_columns(certificate):
        table.add_column(name, overflow="fold")
    opened = {name for name, verdict in certificate.verdicts.items() if is_open(verdict)}
    for row in verdict_rows(certificate):
        style = "bold red" if row[0] in opened else ""
        table.add_row(row[0], Text(row[1], style=style), *(Text(value) for value in row[2:]))
    return table
