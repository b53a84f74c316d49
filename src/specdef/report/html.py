"""The parts of every page: no script, nothing loaded from elsewhere, every value escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from specdef.report.form import plain
from specdef.report.style import CSS

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, header: str, sections: Iterable[str]) -> str:
    """A whole page.

    Args:
        title: plain text.
        header: HTML below the title.
        sections: HTML; empty ones are left out.
    """
    body = "\n".join(filter(None, sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{text(title)}</h1>{header}</header>\n{body}\n</main>\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """A value as text of a page: one line, escaped."""
    return escape(plain(value))


def linked(target: str | None, words: str) -> str:
    """Words as a link, or alone where there is nothing to link to."""
    return text(words) if target is None else f'<a href="{escape(target)}">{text(words)}</a>'


def pairs(found: Iterable[tuple[str, str]]) -> str:
    """Names and short values beside each other."""
    return (
        "<dl>" + "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in found) + "</dl>"
    )


def section(title: str, content: str) -> str:
    """A section with its heading; nothing where there is no content."""
    return f"<section>\n<h2>{text(title)}</h2>\n{content}\n</section>" if content else ""


def listing(items: Iterable[str]) -> str:
    """A list of plain texts."""
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str, *, look: str = "") -> str:
    """A table of plain texts; the first of every row heads it."""
    body = [row(first, (f"<td>{text(value)}</td>" for value in rest)) for first, *rest in rows]
    return grid(columns, body, caption, look=look)


def grid(columns: Sequence[str], rows: Iterable[str], caption: str, *, look: str = "") -> str:
    """A table whose rows `row` made."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    named, body = text(caption), "\n".join(rows)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{named}"><table class="{look}"><caption>'
        f"<span>{named}</span></caption><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def row(name: str, cells: Iterable[str]) -> str:
    """A row of `grid`: its heading in plain text, then cells of HTML."""
    return f'<tr><th scope="row">{text(name)}</th>{"".join(cells)}</tr>'


def facts(pairs: Iterable[tuple[str, object]], caption: str) -> str:
    """A table of names and long values."""
    rows = "\n".join(row(name, [f'<td class="value">{text(value)}</td>']) for name, value in pairs)
    return f'<table class="provenance"><caption><span>{text(caption)}</span></caption>\n<tbody>{rows}</tbody></table>'


def figure(png: bytes, title: str, caption: str = "", links: Sequence[tuple[str | None, str]] = ()) -> str:
    """A picture, with what it shows.

    Args:
        png: the picture.
        title: what it is.
        caption: what it says.
        links: (target, words) of every cell drawn in it, listed below.
    """
    data = base64.b64encode(png).decode("ascii")
    below = f" {text(caption)}" if caption else ""
    drawn = "".join(f"<li>{linked(target, words)}</li>" for target, words in links)
    if drawn:
        drawn = f"\n<details><summary>The {len(links)} runs behind this picture</summary>\n<ul>{drawn}</ul></details>"
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{text(title)}">'
        f"<figcaption><strong>{text(title)}.</strong>{below}</figcaption>{drawn}</figure>"
    )
