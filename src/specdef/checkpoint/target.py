"""A folder to be created: refused early, filled under a temporary sibling name, renamed once. Standard library only."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from specdef.errors import CheckpointError


@contextlib.contextmanager
def new_folder(target: Path, *, source: Path | None = None) -> Iterator[Path]:
    """A temporary sibling of `target` that becomes `target` on success and disappears on failure.

    Args:
        target: the folder to create; must not exist.
        source: the folder being read; `target` may be neither it nor inside it.

    Raises:
        CheckpointError: `target` exists, lies inside `source`, cannot be written, or the disk is full.
    """
    refuse_target(target, source)
    remove_stale(target)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.specdef-{os.getpid()}-", dir=target.parent))
    except OSError as error:
        raise unwritable(target, error) from error
    try:
        temporary.chmod(0o755)
        yield temporary
        refuse_target(target, source)
        temporary.rename(target)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """A temporary folder on the disk of `parent` (the system's place when None), always removed.

    Raises:
        CheckpointError: it cannot be created, or the disk is full.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".specdef-{os.getpid()}-", dir=parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise unwritable(parent or Path(tempfile.gettempdir()), error) from error


def remove_scratch_of(pid: int) -> None:
    """Remove what a process that was killed left in the system's temporary place."""
    for folder in Path(tempfile.gettempdir()).glob(f".specdef-{pid}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def refuse_target(target: Path, source: Path | None) -> None:
    """Raise CheckpointError unless `target` is a new path outside `source`, in a folder that exists."""
    if target.exists() or target.is_symlink():
        raise CheckpointError(f"`out` must be a new folder; {target} exists. Choose another name or remove it.")
    if source is not None and target.resolve().is_relative_to(source.resolve()):
        raise CheckpointError(f"`out` must lie outside the model folder; {target} is inside {source}. Choose another.")
    if not target.resolve().parent.is_dir():
        raise CheckpointError(f"`out` must be in a folder that exists; {target.parent} does not. Create it first.")


def unwritable(target: Path, error: OSError) -> CheckpointError:
    """The user's sentence for an operating-system error while writing."""
    return CheckpointError(
        f"Writing {target} failed ({error.strerror or error}); nothing was left behind. "
        "Free some space or choose a writable place."
    )


def remove_stale(target: Path) -> None:
    """Remove what killed runs left beside `target`."""
    pattern = re.compile(re.escape(f".{target.name}.specdef-") + r"(\d+)-\w+$")
    for path in target.resolve().parent.glob(f".{_glob_escape(target.name)}.specdef-*"):
        match = pattern.match(path.name)
        if match and not is_alive(int(match.group(1))):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _glob_escape(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OverflowError:
        return False
    except PermissionError:
        return True
    return True
