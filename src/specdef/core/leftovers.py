"""What killed processes left behind: recognised by its name, removed by the next run, never while its maker lives.

A temporary name says who made it: the machine and its space of process numbers, the process, and when that process
started. Numbers are used again, and two containers can share a folder; neither may cost a living run its files.
Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

LEFTOVER = re.compile(r"^\.(?:.+\.)?specdef-(?P<home>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}$", re.DOTALL)
_SHOWN_OF_NAME = 40
"""Characters of the target's name that a temporary name keeps, so that it fits in the 255 bytes of a file name."""
_UNKNOWN = "0"


def temporary_name(target: str = "") -> str:
    """A new name for what this process has not finished yet; it starts with a dot."""
    pid = os.getpid()
    started = (_state(pid) or ("", _UNKNOWN))[1]
    owner = f"specdef-{_home()}-{pid}-{started}-{secrets.token_hex(4)}"
    return f".{target[:_SHOWN_OF_NAME]}.{owner}" if target else f".{owner}"


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this machine left in a folder; links are removed, never followed.

    What belongs to another machine or container stays: whether its process lives cannot be seen from here.
    """
    for path, pid, started in _ours(folder):
        if not is_alive(pid, started):
            remove(path)


def remove_scratch() -> None:
    """Remove what killed processes left in the system's temporary place."""
    remove_leftovers(Path(tempfile.gettempdir()))


def remove_scratch_of(pid: int) -> None:
    """Remove what process `pid` of this machine, dead or about to die, has in the system's temporary place."""
    for path, owner, _ in _ours(Path(tempfile.gettempdir())):
        if owner == pid:
            remove(path)


def _ours(folder: Path) -> list[tuple[Path, int, str]]:
    """Unfinished files and folders of this machine's processes: path, process, its start time."""
    try:
        found = [(path, match) for path in folder.iterdir() if (match := LEFTOVER.match(path.name))]
    except OSError:
        return []
    return [(path, int(match["pid"]), match["start"]) for path, match in found if match["home"] == _home()]


def is_alive(pid: int, started: str = _UNKNOWN) -> bool:
    """Whether the process of that number, and of that start time where one is known, still runs on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    state = _state(pid)
    if state is None:  # no /proc on this machine: the number must do
        return True
    return state[0] not in "ZX" and started in (_UNKNOWN, state[1])


def remove(path: Path) -> None:
    """Remove a file, a folder or a link, if it is there and may be removed."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _state(pid: int) -> tuple[str, str] | None:
    """A process's state and start time (clock ticks since boot), from Linux's /proc; None where that is not to be had.

    The state is Z for a process that was killed and not yet waited for: it runs no more.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0].decode(), fields[19].decode()
    except (OSError, IndexError):
        return None


def _home() -> str:
    """This machine and its space of process numbers (a container has its own), as eight hexadecimal digits."""
    try:
        numbers = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbers = ""
    return hashlib.blake2s(f"{os.uname().nodename}\0{numbers}".encode("utf-8", "replace"), digest_size=4).hexdigest()
