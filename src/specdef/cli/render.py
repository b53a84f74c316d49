"""Printing: text made safe for a terminal, JSON, numbers. What the commands say goes through here."""

from __future__ import annotations

import json
import math
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from specdef.core.text import shown_lines

out_console, err_console = Console(), Console(stderr=True)


def safe(value: object) -> str:
    r"""Text from a file, a model or a user as one line to print: nothing in it is obeyed by a terminal or by rich.

    Example:
        >>> print(safe("red \x1b[31m[bold]\n"))
        red \x1b[31m\[bold]\n
    """
    return escape(shown_lines(str(value)).replace("\n", r"\n"))


def say(*lines: object) -> None:
    """Print lines, each made safe and never wrapped."""
    for line in lines:
        out_console.print(safe(line), soft_wrap=True, highlight=False)


def say_error(message: object) -> None:
    """Print why a command failed."""
    err_console.print(f"[red]Error:[/red] {safe(message)}", soft_wrap=True, highlight=False)


def say_note(message: object) -> None:
    """Print what a user should know beside the result."""
    err_console.print(f"Note: {safe(message)}", soft_wrap=True, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON object; its strings are ASCII, so no terminal obeys them."""
    typer.echo(json.dumps(_finite(value), indent=1, default=str, allow_nan=False))


def _finite(value: Any) -> Any:
    """JSON has no infinity: null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: float | None) -> str:
    """Four digits.

    Example:
        >>> number(43.2109), number(None), number(2e17)
        ('43.21', '', '2e+17')
    """
    return "" if value is None else f"{value:.4g}"


MANY = 8
"""More numbers than this are not listed."""


def plain(value: Any) -> str:
    """A value of a lock's description without brackets and quotes; of many numbers, how many and the range.

    Example:
        >>> plain({"norm": 2, "vo": 1}), plain(["q", "k"]), plain(3)
        ('norm:2 vo:1', 'q k', '3')
        >>> plain({"vo": list(range(17, 59))})
        'vo:42 from 17 to 58'
    """
    if isinstance(value, dict):
        return " ".join(f"{key}:{plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        if len(value) > MANY and all(isinstance(one, int | float) for one in value):
            return f"{len(value)} from {min(value)} to {max(value)}"
        return " ".join(map(str, value))
    return str(value)
