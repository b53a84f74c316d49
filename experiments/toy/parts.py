"""Finished parts of a measurement, one file each in work/toy (not committed): a killed run goes on where it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from experiments.locked import WORK
from specdef.certify.environment import commit
from specdef.certify.store import write_json

FOLDER = WORK / "toy"


def part(name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured under that name, with the commit it was measured at; measured now if it was not."""
    path = FOLDER / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.json"
    if not path.is_file():
        FOLDER.mkdir(parents=True, exist_ok=True)
        at = commit()
        write_json(path, {**measure(), "commit": at})
    found: dict[str, Any] = json.loads(path.read_text())
    return found
