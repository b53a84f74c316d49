"""Manifests from strangers: types and sizes are checked before anything relies on them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from specdef import lock, unlock, verify
from specdef.errors import CheckpointError
from specdef.locks.manifest import MANIFEST, read_manifest


@pytest.fixture(scope="module")
def place(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("manifests")
    lock(llama, place / "locked", preset="exact")
    return place


@pytest.fixture
def locked(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "locked", tmp_path / "locked"))


def _edit(locked: Path, **changes: Any) -> None:
    data = json.loads((locked / MANIFEST).read_text())
    data |= {name: {**data[name], **value} if name == "strength" else value for name, value in changes.items()}
    (locked / MANIFEST).write_text(json.dumps(data))


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"config.json": 1}},
        {"files": {"config.json": None}},
        {"files": ["config.json"]},
        {"tensors": {"x": ["y"]}},
        {"checked": "all"},
        {"checked": [1]},
        {"checked": None},
        {"version": 1},
        {"model_type": ["llama"]},
        {"method": ["fold"]},
        {"method": {}},
        {"method": "\x1b[31m"},
        {"exactness": []},
        {"strength": {"exponent": 61, "multiplier": "2^61"}},
        {"strength": {"exponent": 10**12, "multiplier": f"2^{10**12}"}},
        {"strength": {"exponent": 20.0}},
        {"strength": {"exponent": True, "multiplier": "2^True"}},
        {"strength": {"pairs": {"vo": "2"}}},
        {"strength": {"direction": ["up"]}},
        {"strength": {"multiplier": 2**20}},
        *({"strength": {"channels_per_pair": value}} for value in ("1", "many", None, [1], 1.5, True, 0, -1)),
    ],
)
def test_types_and_numbers_that_do_not_fit(
    changes: dict[str, Any], locked: Path, place: Path, llama: Path, tmp_path: Path
) -> None:
    _edit(locked, **changes)
    for work in (
        lambda: verify(locked),
        lambda: verify(locked, original=llama),
        lambda: unlock(locked, tmp_path / "out", place / "locked.specdef-key"),
    ):
        with pytest.raises(CheckpointError) as caught:
            work()
        assert str(caught.value) == f"File {locked / MANIFEST} is malformed. Restore it from the published model."


@pytest.mark.parametrize(
    "text", ["[" * 5000, "9" * 5000, '{"\\ud800": 1}', '{"specdef_lock": 1, "specdef_lock": 1}', ""]
)
def test_text_that_is_no_manifest(text: str, locked: Path) -> None:
    (locked / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=r"specdef_lock\.json .*Restore it from its source\.$"):
        verify(locked)


def test_another_format_is_said(locked: Path) -> None:
    _edit(locked, specdef_lock=2)
    with pytest.raises(CheckpointError, match=r"must be of format 1; it is not\. Use the specdef that wrote it\.$"):
        verify(locked)


def test_what_lock_writes_is_read_as_it_was_written(locked: Path) -> None:
    manifest = read_manifest(locked)
    before = (locked / MANIFEST).read_bytes()
    manifest.write(locked)
    assert (locked / MANIFEST).read_bytes() == before
