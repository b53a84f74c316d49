"""The checker of shapes and types that the import hook of conftest.py applies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from beartype import beartype


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype, but for ``Self``: beartype must see the class to know it, and the hook hands it methods alone."""
    hints = function.__annotations__
    function.__annotations__ = {name: Any if hint in ("Self", Self) else hint for name, hint in hints.items()}
    return beartype(function)
