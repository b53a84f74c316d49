"""Writing a file whole or not at all."""

from __future__ import annotations

from pathlib import Path

from specdef.core.atomic import write_file
from specdef.errors import SpecdefError


def write_bytes(path: Path, content: bytes) -> None:
    """Write under a temporary name beside `path`, then rename.

    Raises:
        SpecdefError: the folder cannot be written; nothing half-written stays behind.
    """
    try:
        write_file(path, content)
    except OSError as error:
        raise SpecdefError(
            f"`folder` must be writable; writing {path.name} failed ({error.strerror or error}). Make room or give "
            "another folder."
        ) from error
