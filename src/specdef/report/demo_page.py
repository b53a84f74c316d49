"""The page of the demonstration: some parts, each a sentence and, where there is one, its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specdef.report.html import document, figure, listing, section, text

PAGE = "index.html"
TITLE = "specdef: a lock, and what it is worth"


@dataclass(frozen=True)
class Part:
    """What the demonstration showed.

    Attributes:
        title: what it comes to, a short sentence.
        lines: what was measured, in sentences.
        picture: a PNG; None where there is none.
        note: what the picture shows.
    """

    title: str
    lines: Sequence[str]
    picture: bytes | None = None
    note: str = ""


def demo_page(parts: Sequence[Part], *, seconds: float) -> str:
    """The page as text.

    Args:
        parts: in the order they happened.
        seconds: of the whole demonstration.
    """
    first = "".join(f"<li>{text(part.title)}.</li>" for part in parts)
    about = f"<ol>{first}</ol><p>Everything below was measured on this machine in {seconds:.0f} seconds.</p>"
    return document(TITLE, about, [section(part.title, _content(part)) for part in parts])


def _content(part: Part) -> str:
    shown = f"<p>{text(part.lines[0])}</p>" + (listing(part.lines[1:]) if len(part.lines) > 1 else "")
    if part.picture is None:
        return shown
    return shown + figure(part.picture, part.title, part.note)
