"""Locked copies of a model for experiments, made once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specdef import lock

HERE = Path(__file__).parent
WORK = HERE / "work"
"""Models and finished cells: large, not committed."""


def locked_copy(original: Path, entry: Mapping[str, Any]) -> Path:
    """The folder of a lock given as data: its label, and the arguments of `specdef.lock`."""
    options = {key: value for key, value in entry.items() if key != "label"}
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{original.name}-{entry['label']}")
    folder = WORK / name
    if not folder.is_dir():
        WORK.mkdir(exist_ok=True)
        (WORK / f"{name}.specdef-key").unlink(missing_ok=True)
        lock(original, folder, **options)
    return folder
