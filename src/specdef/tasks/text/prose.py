"""General text: what a model was good at before anybody attacked it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from specdef.errors import SpecdefError


def bundled_prose() -> str:
    """The public-domain text that ships with the package."""
    return files("specdef.data").joinpath("prose.txt").read_text(encoding="utf-8")


def read_text(path: Path, *, argument: str = "text") -> str:
    """A UTF-8 text file.

    Args:
        path: of the file.
        argument: what the user gave it as.

    Raises:
        SpecdefError: it cannot be read, or holds no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise SpecdefError(f"`{argument}` must be a UTF-8 text file; {path} cannot be read ({error}).") from error
    if not text.strip():
        raise SpecdefError(f"`{argument}` must hold some text; {path} is empty.")
    return text


def split_text(text: str) -> tuple[str, str]:
    """Two halves that share no paragraph: one to mix into training, one to measure on.

    Odd paragraphs are measured, even ones are for training, so that neither half has a topic of its own.

    Raises:
        SpecdefError: fewer than two paragraphs (separated by line ends).
    """
    paragraphs = [line for line in text.splitlines() if line.strip()]
    if len(paragraphs) < 2:
        raise SpecdefError(f"`text` must have at least two paragraphs (lines); it has {len(paragraphs)}.")
    return "\n".join(paragraphs[0::2]), "\n".join(paragraphs[1::2])
