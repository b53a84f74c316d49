"""Where a defence that trains for long keeps its state, so that a run that was killed can go on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdef.core.atomic import temporary_path
from specdef.core.folders import unwritable

SECONDS = 60.0
"""Least time between two writings: the state of a large model takes seconds to write."""


@dataclass
class Unfinished:
    """One file beside the folder that is to be made; its name says what run it is of.

    Attributes:
        out: the folder to be made.
        digest: of everything that decides the run: a run with other options does not find it.
    """

    out: Path
    digest: str

    def __post_init__(self) -> None:
        self._written = time.monotonic()

    @property
    def path(self) -> Path:
        """The file."""
        return self.out.with_name(f"{_prefix(self.out)}{self.digest[:12]}")

    def load(self) -> Mapping[str, Any] | None:
        """The state that was saved last; None where there is none, or it cannot be read."""
        import torch

        if not self.path.is_file():
            return None
        try:
            found: Mapping[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            return found
        except Exception:  # torch raises what it likes over a damaged file
            return None

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state, whole or not at all; left out while the last one is younger than `SECONDS`.

        Raises:
            CheckpointError: the disk is full or the folder not writable.
        """
        import torch

        if time.monotonic() - self._written < SECONDS:
            return
        try:
            with temporary_path(self.path) as temporary:
                torch.save(dict(state), temporary)
                temporary.replace(self.path)
        except (OSError, RuntimeError) as error:
            raise unwritable(self.path, error if isinstance(error, OSError) else OSError(str(error))) from error
        self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the states of all runs that were to make this folder: it exists now."""
        for path in self.out.parent.glob(f"{_escaped(_prefix(self.out))}*"):
            path.unlink(missing_ok=True)


def _prefix(out: Path) -> str:
    return f".{out.name}.unfinished-"


def _escaped(text: str) -> str:
    import glob

    return glob.escape(text)
