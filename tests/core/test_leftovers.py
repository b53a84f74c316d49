"""Whose an unfinished file is: removed when its maker was killed, and never otherwise."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from specdef.core import leftovers
from specdef.core.atomic import temporary_in, temporary_path, write_file
from specdef.core.folders import new_folder, scratch_folder
from specdef.core.leftovers import LEFTOVER, is_alive, remove_leftovers, remove_scratch_of, temporary_name

LEAVES = """
import sys, time
from pathlib import Path
from specdef.core.folders import unplaced_folder
with unplaced_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def _name(pid: int, started: str | None = None, *, home: str | None = None, target: str = "out") -> str:
    found = LEFTOVER.match(temporary_name(target))
    assert found is not None
    return f".{target}.specdef-{home or found['home']}-{pid}-{started or found['start']}-0123abcd"


def test_a_living_process_keeps_its_folder_and_a_killed_one_loses_it(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", LEAVES, tmp_path / "out"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    remove_leftovers(tmp_path)
    (left,) = tmp_path.glob(".out.specdef-*")
    assert (left / "half").read_text() == "x", "its maker is alive"
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    remove_leftovers(tmp_path)
    assert not left.exists(), "killed, though nobody has waited for it yet"
    child.wait()


def test_what_is_not_ours_or_not_dead_stays(tmp_path: Path, dead: int) -> None:
    kept = [
        _name(os.getpid()),  # this process
        _name(1, "0"),  # alive, of an unknown start
        _name(dead, home="00000000"),  # another machine's, or another container's
        f".out.specdef-{dead}-0123abcd",
        f"out.specdef-{dead}",
        _name(dead)[1:],  # no dot
        _name(dead) + ".txt",
        ".specdef",
        "out",
    ]
    gone = [_name(dead), _name(dead, target="other"), _name(dead, target="")[1:]]
    gone += [_name(os.getpid(), "1"), _name(2**70), _name(dead, target="two\nlines")]  # a number used again
    for name in (*kept, *gone):
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "scratch"}


def test_links_are_removed_and_not_followed(tmp_path: Path, dead: int) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (tmp_path / _name(dead)).symlink_to(precious)
    folder = tmp_path / _name(dead, target="folder")
    folder.mkdir()
    (folder / "link").symlink_to(precious)
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"precious", "scratch"}
    assert (precious / "file").read_text() == "x"


@pytest.mark.parametrize("use", ["new_folder", "scratch_folder", "write_file", "temporary_path", "temporary_in"])
def test_every_writer_tidies_the_place_it_works_in(use: str, tmp_path: Path, dead: int) -> None:
    (tmp_path / _name(dead, target="something")).mkdir()
    (tmp_path / "scratch" / _name(dead, target="")[1:]).mkdir()
    match use:
        case "new_folder":
            with new_folder(tmp_path / "out"):
                pass
        case "scratch_folder":
            with scratch_folder(tmp_path):
                pass
        case "write_file":
            write_file(tmp_path / "file", b"")
        case "temporary_path":
            with temporary_path(tmp_path / "file"):
                pass
        case _:
            with temporary_in(tmp_path):
                pass
    assert not list(tmp_path.glob("**/.*specdef-*"))


def test_a_process_that_was_killed_is_tidied_up_after_by_number(tmp_path: Path, dead: int) -> None:
    for pid in (dead, dead + 1):
        (tmp_path / "scratch" / _name(pid)).mkdir()
    remove_scratch_of(dead)
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == [_name(dead + 1)]


def test_a_name_says_whose_it_is_and_fits(tmp_path: Path) -> None:
    found = LEFTOVER.match(temporary_name())
    assert found is not None
    assert (int(found["pid"]), re.fullmatch(r"[1-9]\d*", found["start"]) is not None) == (os.getpid(), True)
    assert is_alive(os.getpid(), found["start"])
    assert temporary_name() != temporary_name()
    for longest in ("x" * 255, "🙂" * 63, "caf\udce9" * 50):
        (tmp_path / temporary_name(longest)).touch()


def test_without_proc_the_number_alone_tells(monkeypatch: pytest.MonkeyPatch, dead: int) -> None:
    monkeypatch.setattr(leftovers, "_state", lambda pid: None)
    assert "-0-" in temporary_name()
    assert is_alive(os.getpid(), "0")
    assert is_alive(os.getpid(), "123"), "in doubt it lives"
    assert not is_alive(dead)
