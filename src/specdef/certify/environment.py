"""The machine, the libraries and the commit a result comes from."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from specdef.core.versions import installed_versions

_LIBRARIES = ("specdef", "torch", "transformers", "accelerate", "peft", "pytorch-optimizer")


@dataclass(frozen=True)
class Environment:
    """Where a result comes from; None where it was not recorded.

    Attributes:
        hardware: name of the processor or GPU.
        python: its version.
        libraries: name -> version.
        commit: of the source tree, with ``-dirty`` when it was changed.
    """

    hardware: str | None
    python: str | None
    libraries: dict[str, str]
    commit: str | None = None


def environment(device: str) -> Environment:
    """The machine and the libraries, for the record."""
    return Environment(_hardware(device), platform.python_version(), installed_versions(_LIBRARIES), commit())


def _hardware(device: str) -> str:
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def commit() -> str | None:
    """The commit of the source tree, with ``-dirty`` when it was changed; None for an installed package.

    Where the tree was copied without its repository, the environment variable ``SPECDEF_COMMIT`` says it.
    """
    if (said := os.environ.get("SPECDEF_COMMIT")) is not None:
        return said
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
