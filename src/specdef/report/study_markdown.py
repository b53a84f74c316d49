"""A study as Markdown: one table for every model and task, in the papers' form."""

from __future__ import annotations

from specdef.certify.study_results import Entry, StudyResults, Table
from specdef.report.form import plain
from specdef.report.study_view import grid, legend, price_text, steps_text, table_title


def study_markdown(results: StudyResults) -> str:
    """The whole document."""
    parts = [f"# {_md(results.title)}"]
    for table in results.tables:
        if len(results.tables) > 1:
            parts.append(f"## {_md(table_title(table))}")
        parts.append(_table(table, results.rows))
    if results.tables:
        parts.append(legend(results))
    if results.certificates:
        parts.append("\n".join(f"- [{name}]({name}/index.html)" for name in results.certificates))
    return "\n\n".join(parts) + "\n"


def _table(table: Table, rows: str) -> str:
    columns, names, lines = grid(table, rows)
    first = "attack" if rows == "attacks" else "defence"
    head = [f"| {first} | " + " | ".join(map(_md, columns)) + " |", "|---" * (len(columns) + 1) + "|"]
    body = [
        f"| {_md(name)} | " + " | ".join(_md(_said(entry, rows)) for entry in line) + " |"
        for name, line in zip(names, lines, strict=True)
    ]
    return "\n".join([*head, *body])


def _said(entry: Entry, rows: str) -> str:
    price = price_text(entry) if rows == "attacks" else ""
    return steps_text(entry) + (f"; {price}" if price else "")


def _md(text: object) -> str:
    """One line of text that Markdown takes for nothing else."""
    escaped = plain(text).replace("\\", "\\\\")
    for sign in "|<*_`[":
        escaped = escaped.replace(sign, "\\" + sign)
    return escaped
