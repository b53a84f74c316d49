"""Locked copies of a model for experiments, made once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specdef import lock
from specdef.certify.cell import digest_of

HERE = Path(__file__).parent
WORK = HERE / "work"
"""Models and finished cells: large, not committed."""


def anywhere(text: str) -> str:
    """Results without the place of `WORK`, which is this machine's."""
    return text.replace(str(WORK), "experiments/work")


def locked_copy(original: Path, entry: Mapping[str, Any]) -> Path:
    """The folder of a lock given as data: its label, and the arguments of `specdef.lock`.

    Named by the arguments, not by the label: two experiments may call different locks by one label.
    """
    options = {key: value for key, value in entry.items() if key != "label"}
    readable = "".join(letter if letter.isalnum() else "-" for letter in f"{original.name}-{entry['label']}")
    name = f"{readable}-{digest_of(options)[:8]}"
    folder = WORK / name
    if not folder.is_dir():
        WORK.mkdir(exist_ok=True)
        (WORK / f"{name}.specdef-key").unlink(missing_ok=True)
        lock(original, folder, **options)
    return folder
