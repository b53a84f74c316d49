"""Where a cell is found: its place in a page, and its result file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import quote

from specdef.certify.certificate import Certificate
from specdef.certify.certified_cell import CertifiedCell
from specdef.report import phrases
from specdef.report.entries import Entry, slowed_from

Link = Callable[[str], str | None]
"""Key of a cell -> where a page links it to; None where there is nothing to link to."""


def place(key: str) -> str:
    """The id of a cell's entry in its certificate's page."""
    return f"cell-{quote(key, safe='')}"


def to_entry(key: str) -> str:
    """The link to a cell's entry in the same page."""
    return f"#{place(key)}"


def to_files(folder: str, keys: Iterable[str]) -> Link:
    """Links to result files.

    Args:
        folder: where they lie, as a page names it: a path relative to the page, with ``/`` between its parts.
        keys: of the cells whose files are there.
    """
    known = set(keys)
    return lambda key: f"{quote(folder)}/{quote(key, safe='')}.json" if key in known else None


def run_links(certificate: Certificate, link: Link, rows: Iterable[CertifiedCell]) -> dict[str, tuple[str | None, str]]:
    """Key -> (target, words) of some cells, each once, as the list below a picture has them."""
    found: dict[str, tuple[str | None, str]] = {}
    for row in rows:
        kind = Entry((row,), slowed_from(certificate, row.threat_model)).kind
        found.setdefault(row.cell, (link(row.cell), f"{row.threat_model}: {phrases.mark_title(row, kind)}"))
    return found
