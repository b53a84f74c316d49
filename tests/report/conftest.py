"""Results folders of made-up certificates."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from synthetic import certify, falls_to_search, holds


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a lock that falls; read only."""
    folder = tmp_path_factory.mktemp("opened")
    certify(folder, falls_to_search)
    return folder


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a lock that T0 did not break; read only."""
    folder = tmp_path_factory.mktemp("held")
    certify(folder, holds, threats=("T0",))
    return folder


@pytest.fixture
def copy(opened: Path, tmp_path: Path) -> Path:
    """Results that a test may change."""
    return Path(shutil.copytree(opened, tmp_path / "results"))
