"""A folder to be created: refused early, filled under a temporary sibling name, renamed once. Standard library only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from specdef.core.atomic import temporary_in, temporary_path
from specdef.core.text import shown
from specdef.errors import CheckpointError

SIGNATURE = "specdef.sig"
"""The signature of a folder, as `specdef sign` writes it there."""


@contextmanager
def new_folder(target: Path, *, source: Path | None = None) -> Iterator[Path]:
    """A temporary sibling of `target` that becomes `target` on success and disappears on failure.

    Args:
        target: the folder to create; must not exist.
        source: the folder being read; `target` may be neither it nor inside it.

    Raises:
        CheckpointError: `target` exists, lies inside `source`, cannot be written, or the disk is full.
    """
    with unplaced_folder(target, source=source) as temporary:
        yield temporary
        place_folder(temporary, target, source=source)


@contextmanager
def unplaced_folder(target: Path, *, source: Path | None = None) -> Iterator[Path]:
    """The same, for a caller that calls `place_folder` itself; without that it disappears."""
    refuse_target(target, source)
    try:
        with temporary_path(target) as temporary:
            temporary.mkdir()
            yield temporary
    except OSError as error:
        raise unwritable(target, error) from error


def place_folder(temporary: Path, target: Path, *, source: Path | None = None) -> None:
    """Give a finished folder its name.

    Raises:
        CheckpointError: something of that name has appeared in the meantime.
    """
    refuse_target(target, source)
    temporary.rename(target)


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """A temporary folder on the disk of `parent` (the system's place when None), always removed.

    Raises:
        CheckpointError: it cannot be created, or the disk is full.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    try:
        with temporary_in(parent) as folder:
            folder.mkdir(mode=0o700)
            yield folder
    except OSError as error:
        raise unwritable(parent, error) from error


def refuse_target(target: Path, source: Path | None) -> None:
    """Raise CheckpointError unless `target` is a new path outside `source`, in a folder that exists."""
    if target.exists() or target.is_symlink():
        raise CheckpointError(f"`out` must be a new folder; {shown(target)} exists. Choose another name or remove it.")
    if source is not None and target.resolve().is_relative_to(source.resolve()):
        raise CheckpointError(
            f"`out` must lie outside the model folder; {shown(target)} is inside {shown(source)}. Choose another."
        )
    if not target.resolve().parent.is_dir():
        raise CheckpointError(
            f"`out` must be in a folder that exists; {shown(target.parent)} does not. Create it first."
        )


def unwritable(target: Path, error: OSError) -> CheckpointError:
    """The user's sentence for an operating-system error while writing."""
    return CheckpointError(
        f"Writing {shown(target)} failed ({error.strerror or error}); nothing was left behind. "
        "Free some space or choose a writable place."
    )
