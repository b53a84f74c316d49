"""What tests of defences against relearning share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from specdef.defences.base import Given
from specdef.defences.objective import Rows

Make = Callable[[Path], Given]
"""The fixture `given_for`."""


def rows(given: Given) -> tuple[Rows, Rows]:
    """All three rows to forget, and all three to keep."""
    assert given.data_rows is not None
    return Rows(given.data_rows.forget, (0, 1, 2)), Rows(given.data_rows.retain, (0, 1, 2))
