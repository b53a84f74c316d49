"""Lock open-weight models against fine-tuning, and measure honestly whether a lock holds.

The verbs of the command line are functions here; importing this package is cheap, heavy libraries load on first use.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

from specdef.integrations import transformers_autoload as _autoload

__version__ = "0.1.0"


def _homes() -> dict[str, str]:
    """Public name -> the module it lives in, from the one list of them, which type checkers read as well."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {
        alias.name: str(node.module) for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


_HOMES = _homes()
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'specdef' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


_autoload.install()
