"""How much memory the machine has."""

from __future__ import annotations

import os


def physical_memory() -> int:
    """Bytes of the machine's memory, in use or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
