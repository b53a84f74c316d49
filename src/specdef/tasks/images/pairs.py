"""Pictures with a prompt each, as those who train text-to-image models keep them: a list beside the pictures.

``metadata.jsonl`` in the folder of the pictures, an object a line::

    {"file_name": "0001.png", "text": "a picture of a boot", "label": 1}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from specdef.errors import TaskError
from specdef.models.samples import LabelledImage
from specdef.tasks.images.pictures import read_picture, refuse_mixed

LIST = "metadata.jsonl"
LABELS = range(2**31 - 1)
FIELDS: dict[str, type] = {"file_name": str, "text": str, "label": int}


def list_of(path: Path) -> Path | None:
    """The list that a path means: a folder that holds one, or the list itself; None for anything else."""
    if path.is_dir():
        return path / LIST if (path / LIST).is_file() else None
    return path if path.suffix == ".jsonl" else None


def read_pairs(path: Path, *, argument: str = "path") -> list[tuple[LabelledImage, str]]:
    """Images and their prompts, in the list's order.

    Args:
        path: the list; pictures are beside it, or where it says relative to itself.
        argument: what the user gave it as.

    Raises:
        TaskError: the list or a picture cannot be read, an entry lacks something, or pictures differ in size or colour.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"`{argument}` must name a readable list of pictures; {path} is not ({error}).") from error
    entries = [_entry(line, number, path, argument) for number, line in enumerate(lines, 1) if line.strip()]
    if not entries:
        raise TaskError(f"`{argument}` must name a list of pictures; {path} is empty. Write {', '.join(FIELDS)}.")
    places = [path.parent / entry["file_name"] for entry in entries]
    pixels = {place: read_picture(place, argument) for place in places}
    refuse_mixed(pixels, argument)
    return [
        (LabelledImage.of(pixels[place], entry["label"]), entry["text"])
        for place, entry in zip(places, entries, strict=True)
    ]


def _entry(line: str, number: int, path: Path, argument: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise TaskError(f"`{argument}` must name a list with a JSON object a line; line {number} of {path} is none.")
    for name, kind in FIELDS.items():
        value = entry.get(name)
        if type(value) is not kind or value == "" or (isinstance(value, int) and value not in LABELS):
            raise TaskError(
                f"`{argument}` must name a list with {', '.join(FIELDS)} in every line, the label a whole number from "
                f"0; line {number} of {path} has {name} {value!r}."
            )
    return entry
