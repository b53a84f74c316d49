"""Commands killed -9 before every operation on files: nothing half-made under a final name, and the next run tidies up.

The work runs in forks of this process, so that what is imported already is not imported again for every kill. A fork of
a process with threads can hang: `test_kills.py` runs this file in a process of its own.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from kills import kills
from synthetic import certify, holds

from specdef import lock, unlock, verify
from specdef.cli.main import app
from specdef.core.atomic import write_file
from specdef.core.folders import scratch_folder

EVERY = pytest.mark.parametrize("every", [17, pytest.param(3, marks=pytest.mark.slow)])
"""Of the operations of longer commands, every so many are killed at."""


def run(*arguments: str | Path) -> None:
    app([*map(str, arguments)], standalone_mode=False)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary place."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the commands write."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def _content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def _killed_again_and_again(work: Callable[[Path], object], place: Path, scratch: Path) -> int:
    """Kill work that creates `out` in a place; after each kill it is whole or absent. The last run finds no trace."""
    work(place / "whole")
    whole = _content(place / "whole")
    shutil.rmtree(place / "whole")
    left = number = 0
    for _ in kills(lambda _: work(place / "out"), (place, scratch)):
        number += 1
        left += len(list(place.glob(".*"))) + len(list(scratch.iterdir()))
        if (place / "out").exists():
            assert _content(place / "out") == whole
            shutil.rmtree(place / "out")
    assert left, "some kill left something"
    assert {path.name for path in place.iterdir()} == {"out"}
    assert not list(scratch.iterdir())
    assert _content(place / "out") == whole
    return number


def test_undo(llama: Path, place: Path, scratch: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", preset="exact")
    assert _killed_again_and_again(lambda out: run("undo", "rebalance", tmp_path / "locked", out), place, scratch) > 10


def test_unlock(llama: Path, place: Path, scratch: Path, tmp_path: Path) -> None:
    key = lock(llama, tmp_path / "locked", preset="exact").key
    assert key is not None
    assert _killed_again_and_again(lambda out: unlock(tmp_path / "locked", out, key), place, scratch) > 10
    assert key.is_file()


def test_lock_never_leaves_a_folder_without_its_key(llama: Path, place: Path, scratch: Path) -> None:
    out, key = place / "out", place / "out.specdef-key"
    for _ in kills(lambda _: lock(llama, out, preset="exact"), (place, scratch)):
        assert _visible(place) in (set(), {key.name}, {out.name, key.name})
        if out.exists():
            assert verify(out).passed
            unlock(out, place / "back", key)
            assert _content(place / "back") == _content(llama)
            shutil.rmtree(place / "back")
            shutil.rmtree(out)
        key.unlink(missing_ok=True)
    assert {path.name for path in place.iterdir()} == {out.name, key.name}
    assert not list(scratch.iterdir())


@EVERY
def test_report(every: int, place: Path, scratch: Path) -> None:
    folder = place / "results"
    certify(folder, holds, ("T0",))
    run("report", folder)
    whole = _content(folder)
    assert {"index.html", "heatmap.png"} <= whole.keys()
    left = 0
    for _ in kills(lambda _: run("report", folder), (place, scratch), every=every):
        left += len(list(folder.glob(".*"))) + len(list(scratch.iterdir()))
        assert {name: data for name, data in _content(folder).items() if name in whole} == whole
    assert left, "some kill left something"
    assert _content(folder) == whole
    assert not list(scratch.iterdir())


@EVERY
def test_attack_on_rewritten_weights(every: int, toy_model: Path, place: Path, scratch: Path, tmp_path: Path) -> None:
    lock(toy_model, tmp_path / "locked", preset="exact")
    arguments = ("attack", tmp_path / "locked", "--task", "facts", "--rewrite", "rebalance")
    arguments = (*arguments, "--steps", "2", "--threads", "1")
    left = 0
    for _ in kills(lambda _: run(*arguments, "--out", place / "runs"), (place, scratch), every=every):
        left += len(list(scratch.iterdir()))
    assert left, "some kill left a rewritten model"
    assert not list(scratch.iterdir())
    assert not list(place.rglob(".*"))
    assert len(list((place / "runs" / "cells").iterdir())) == 1


def test_scratch_in_the_systems_place_goes_with_any_next_run(place: Path, scratch: Path) -> None:
    def work(_: int) -> None:
        with scratch_folder(None) as folder:
            (folder / "a" / "b").mkdir(parents=True)
            (folder / "a" / "b" / "file").write_text("x")

    for _ in kills(work, (scratch,)):
        write_file(place / "elsewhere", b"x")
        assert not list(scratch.iterdir())


def test_a_file_is_the_old_or_the_new_one(place: Path, scratch: Path) -> None:
    path = place / "file"
    path.write_bytes(b"old")
    seen = set()
    for _ in kills(lambda _: write_file(path, b"new" * 100_000), (place, scratch)):
        seen.add(path.read_bytes())
    assert seen <= {b"old", b"new" * 100_000}
    assert path.read_bytes() == b"new" * 100_000
    assert [found.name for found in place.iterdir()] == ["file"]
