"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from specdef.errors import SpecdefError


def write_bytes(path: Path, content: bytes) -> None:
    """Write under a temporary name beside `path`, then rename.

    Raises:
        SpecdefError: the folder cannot be written; nothing half-written stays behind.
    """
    temporary: Path | None = None
    try:
        prefix = f".{path.name}.tmp-{os.getpid()}-"
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=prefix, delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise SpecdefError(
            f"`folder` must be writable; writing {path.name} failed ({error.strerror or error}). Make room or give "
            "another folder."
        ) from error
