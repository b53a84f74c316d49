"""Versions of libraries, for records."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Name -> version; a library that is not installed, or runs from a folder without metadata, is left out.

    Example:
        >>> sorted(installed_versions(["torch", "no-such-library"]))
        ['torch']
    """
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
