"""Faults of the machine: no memory, no room on the disk. They say nothing about a defence, so they are no result."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from specdef.errors import SpecdefError

_ERRNOS = frozenset(
    (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ESTALE,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.ENOBUFS,
    )
)
"""What the machine lacks or broke; a file that is missing or closed to the reader is the user's to put right."""
_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "no space left on device")
"""How torch and its allocators say it, in a plain RuntimeError."""


class MachineFault(SpecdefError):
    """The machine ran out of memory or disk, or failed; the same command may succeed later or elsewhere."""


def is_machine_fault(error: BaseException) -> bool:
    """Whether an error is the machine's, or was raised because of one that is.

    Example:
        >>> is_machine_fault(OSError(errno.ENOSPC, "full")), is_machine_fault(FileNotFoundError(errno.ENOENT, "none"))
        (True, False)
    """
    found: BaseException | None = error
    while found is not None:
        if _is_own_fault(found):
            return True
        found = found.__cause__
    return False


def _is_own_fault(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _ERRNOS
    if isinstance(error, RuntimeError):
        import torch

        return isinstance(error, torch.OutOfMemoryError) or any(words in str(error).lower() for words in _WORDS)
    return isinstance(error, MemoryError | MachineFault)


def describe(error: BaseException) -> str:
    """One line for an exception inside a cell."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


@contextmanager
def machine_faults_said() -> Iterator[None]:
    """Say a fault of the machine in one sentence; every other error passes.

    Raises:
        MachineFault: there was one.
    """
    try:
        yield
    except Exception as error:
        if not is_machine_fault(error):
            raise
        raise MachineFault(
            f"The attack must have memory and disk enough; this machine failed it ({describe(error)}). Nothing was "
            "stored. Make room, or take another machine, then run the same command again."
        ) from error
