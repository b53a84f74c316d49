"""A certificate is of a model, not of its licence: prose may come and go before and after it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from specdef import lock
from specdef.certify.cell import file_digests, subject_digest, subject_of
from specdef.integrations.certified import is_of_folder
from specdef.locks.manifest import read_manifest


@pytest.fixture
def locked(llama: Path, tmp_path: Path) -> Path:
    model = Path(shutil.copytree(llama, tmp_path / "model"))
    (model / "NOTICE").write_text("as it was")
    lock(model, tmp_path / "locked", preset="exact")
    return tmp_path / "locked"


def _is(digest: str, folder: Path) -> bool:
    return is_of_folder(digest, folder, read_manifest(folder))


def test_prose_may_change_on_both_sides_of_the_certificate(locked: Path) -> None:
    first = subject_of(locked).digest
    (locked / "LICENSE").write_text("MIT")
    (locked / "plot.png").write_bytes(b"png")
    certified = subject_of(locked).digest
    (locked / "specdef.sig").write_text("{}")
    (locked / "NOTICE").write_text("edited")
    (locked / "README.md").write_text("edited")
    assert _is(certified, locked)
    assert _is(first, locked)
    (locked / "NOTICE").unlink()
    assert _is(certified, locked)


@pytest.mark.parametrize("name", ["config.json", "modeling.py"])
def test_what_the_model_reads_may_not_change(name: str, locked: Path) -> None:
    certified = subject_of(locked).digest
    with (locked / name).open("a") as file:
        file.write("\n")
    assert not _is(certified, locked)


def test_many_files_more_are_tried_all_or_none(locked: Path) -> None:
    first = subject_of(locked).digest
    for number in range(12):
        (locked / f"{number}.png").write_bytes(b"png")
    between = subject_of(locked).digest
    assert _is(between, locked)
    (locked / "12.png").write_bytes(b"png")
    assert _is(first, locked)
    assert _is(subject_of(locked).digest, locked)
    assert not _is(between, locked)


def test_a_manifest_without_digests_is_no_crash(locked: Path) -> None:
    text = (locked / "specdef_lock.json").read_text()
    digest = read_manifest(locked).files["NOTICE"]
    (locked / "specdef_lock.json").write_text(text.replace(digest, "none"))
    assert _is(subject_of(locked).digest, locked)


def test_the_digest_of_a_subject_is_as_it_always_was(tmp_path: Path) -> None:
    """Stored cells are found by it."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "README.md").write_text("prose")
    (tmp_path / "specdef.sig").write_text("{}")
    assert sorted(file_digests(tmp_path)) == ["model.safetensors"]
    assert subject_of(tmp_path).digest == subject_digest(file_digests(tmp_path))
    assert subject_of(tmp_path).digest == "4fd79e961577596a94be38847f8f8986906d994000e578651f31ddaf359b1a69"
