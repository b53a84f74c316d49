"""A study as one HTML file: no script, nothing loaded from elsewhere, every value escaped."""

from __future__ import annotations

import base64
from html import escape

from specdef.certify.study_results import Entry, StudyResults, Table
from specdef.report.page import KIND_CLASS, POLICY
from specdef.report.sentences import plain
from specdef.report.study_view import grid, kind_of, legend, price_text, steps_text, table_title
from specdef.report.style import CSS


def study_page(results: StudyResults, picture: bytes | None) -> str:
    """The page as text.

    Args:
        results: what `run_study` gave.
        picture: a PNG shown below the tables; None leaves it out.
    """
    sections = [_section(table_title(table), _table(table, results.rows)) for table in results.tables]
    if results.tables:
        sections.append(f'<p class="legend">{_text(legend(results))}</p>')
    if picture is not None:
        data = base64.b64encode(picture).decode("ascii")
        image = f'<figure><img src="data:image/png;base64,{data}" alt="The tables above, coloured by outcome"></figure>'
        sections.append(_section("Picture", image))
    if results.certificates:
        links = "".join(
            f'<li><a href="{_text(name)}/index.html">{_text(name)}</a></li>' for name in results.certificates
        )
        sections.append(_section("Certificates", f"<ul>{links}</ul>"))
    sections.append(_section("Provenance", _provenance(results)))
    title, body = _text(results.title), "\n".join(sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n<header><h1>{title}</h1></header>\n"
        f"{body}\n</main>\n</body>\n</html>\n"
    )


def _table(table: Table, rows: str) -> str:
    columns, names, lines = grid(table, rows)
    first = "attack" if rows == "attacks" else "defence"
    caption = f"Target {table.target:g}. {table.utility.capitalize()} of the undefended model: {table.reference:.4g}."
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in (first, *columns))
    body = "\n".join(
        f'<tr><th scope="row">{_text(name)}</th>{"".join(_cell(entry, rows) for entry in line)}</tr>'
        for name, line in zip(names, lines, strict=True)
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="paper"><caption><span>{_text(caption)}</span></caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(entry: Entry, rows: str) -> str:
    kind = kind_of(entry)
    small = [kind.value] if entry.score is not None else []
    if rows == "attacks" or entry.score is None:
        small.append(price_text(entry))
    notes = "".join(f"<small>{_text(line)}</small>" for line in small if line)
    return f'<td class="{KIND_CLASS[kind]}">{_text(steps_text(entry))}{notes}</td>'


def _provenance(results: StudyResults) -> str:
    where = results.environment
    facts = {
        "hardware": where.hardware,
        "python": where.python,
        "libraries": ", ".join(f"{name} {version}" for name, version in where.libraries.items()),
        "commit": where.commit,
        "command": results.command,
    }
    rows = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td class="value">{_text(value)}</td></tr>'
        for name, value in facts.items()
        if value
    )
    return f'<div class="scroll" tabindex="0"><table class="provenance"><tbody>{rows}</tbody></table></div>'


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{_text(title)}</h2>\n{content}\n</section>"


def _text(value: object) -> str:
    return escape(plain(value))
