"""A study as one HTML file."""

from __future__ import annotations

from specdef.certify.study_results import Entry, StudyResults, Table
from specdef.report import phrases
from specdef.report.html import document, facts, figure, grid, row, section, text
from specdef.report.kind import LOOKS
from specdef.report.study_view import grid as table_grid
from specdef.report.study_view import kind_of, legend, price_text, steps_text, table_title


def study_page(results: StudyResults, picture: bytes | None) -> str:
    """The page as text.

    Args:
        results: what `run_study` gave.
        picture: a PNG shown below the tables; None leaves it out.
    """
    sections = [section(table_title(table), _table(table, results.rows)) for table in results.tables]
    if results.tables:
        sections.append(f'<p class="legend">{text(legend(results))}</p>')
    if picture is not None:
        sections.append(section("Picture", figure(picture, "The tables above, coloured by outcome")))
    links = "".join(f'<li><a href="{text(name)}/index.html">{text(name)}</a></li>' for name in results.certificates)
    sections.append(section("Certificates", f"<ul>{links}</ul>" if links else ""))
    sections.append(section("Provenance", _provenance(results)))
    return document(results.title, "", sections)


def _table(table: Table, rows: str) -> str:
    columns, names, lines = table_grid(table, rows)
    first = "attack" if rows == "attacks" else "defence"
    caption = f"Target {table.target:g}. {table.utility.capitalize()} of the undefended model: {table.reference:.4g}."
    body = [row(name, (_cell(entry, rows) for entry in line)) for name, line in zip(names, lines, strict=True)]
    return grid((first, *columns), body, caption, look="paper")


def _cell(entry: Entry, rows: str) -> str:
    kind = kind_of(entry)
    small = [phrases.kind(kind)] if entry.score is not None else []
    if rows == "attacks" or entry.score is None:
        small.append(price_text(entry))
    notes = "".join(f"<small>{text(line)}</small>" for line in small if line)
    return f'<td class="{LOOKS[kind]}">{text(steps_text(entry))}{notes}</td>'


def _provenance(results: StudyResults) -> str:
    where = results.environment
    libraries = ", ".join(f"{name} {version}" for name, version in where.libraries.items())
    pairs = {
        "hardware": where.hardware,
        "python": where.python,
        "libraries": libraries,
        "commit": where.commit,
        "command": results.command,
    }
    return facts([(name, value) for name, value in pairs.items() if value], "Where and with what")
