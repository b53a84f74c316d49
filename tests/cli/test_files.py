"""The command line's own shape: small files, and nothing but parsing, one call and printing."""

from __future__ import annotations

from pathlib import Path

import pytest

import specdef.cli

FILES = sorted(Path(specdef.cli.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 150
