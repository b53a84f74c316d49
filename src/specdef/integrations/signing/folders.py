"""Which files a signature covers: every one of the folders given, but itself and what git and a hub put beside them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from specdef.core.leftovers import LEFTOVER
from specdef.core.text import is_unicode, shown
from specdef.errors import SignatureError, SpecdefError

IGNORED = (".cache", ".git", ".gitattributes")
"""At the top of a folder: a hub and git write them after signing, and no runtime reads them."""
SHOWN = 3
"""Files of a kind of difference that are named."""


@dataclass(frozen=True)
class Folders:
    """The folders of one statement.

    Attributes:
        parts: what stands before the names of a folder's files -> the folder. One folder: "" (it may be renamed);
            several: each its own name and a slash.
        signature: where the signature lies, or will; it is no part of what is signed.
    """

    parts: Mapping[str, Path]
    signature: Path

    @property
    def name(self) -> str:
        """The folders' names, as the statement calls its subject."""
        return " and ".join(folder.resolve().name for folder in self.parts.values())

    def files(self) -> dict[str, Path]:
        """Name in the statement -> file, sorted.

        Raises:
            SignatureError: something is neither a file nor a folder, such as a link, or cannot be read.
        """
        found = {}
        for prefix, folder in self.parts.items():
            for path in _walk(folder):
                if _place(path) != _place(self.signature):
                    found[prefix + path.relative_to(folder).as_posix()] = path
        return dict(sorted(found.items()))

    def ignored(self) -> list[str]:
        """Names that are not covered, as the statement lists them."""
        names = [prefix + name for prefix in self.parts for name in IGNORED]
        for prefix, folder in self.parts.items():
            if _place(self.signature).is_relative_to(folder.resolve()):
                names.append(prefix + _place(self.signature).relative_to(folder.resolve()).as_posix())
        return names


def named_folders(folders: Sequence[Path], signature: Path) -> Folders:
    """The folders of a statement, each under its name where there are several.

    Raises:
        SpecdefError: there is none, one is no folder, two have one name, or one lies inside another.
    """
    if not folders:
        raise SpecdefError("`folders` must be one folder or more; got none.")
    for folder in folders:
        if not folder.is_dir():
            raise SpecdefError(f"`folders` must be locked folders or results folders; {shown(folder)} is no folder.")
    places = [folder.resolve() for folder in folders]
    for index, one in enumerate(places):
        for other in places[:index]:
            if one.is_relative_to(other) or other.is_relative_to(one):
                raise SpecdefError(f"`folders` must lie apart; {shown(one)} and {shown(other)} do not. Give the outer.")
            if one.name == other.name:
                raise SpecdefError(
                    f"`folders` must have different names, which the statement uses; two are called {shown(one.name)}. "
                    "Rename one."
                )
    parts = {"": folders[0]} if len(folders) == 1 else dict(zip([f"{p.name}/" for p in places], folders, strict=True))
    return Folders(parts, signature)


def refuse_unfinished(files: Mapping[str, Path]) -> None:
    """Raise SpecdefError when there is nothing to sign, or a run has not finished what it writes."""
    if not files:
        raise SpecdefError("`folders` must hold files; there are none to sign.")
    for name, path in files.items():
        if any(LEFTOVER.match(part) for part in name.split("/")):
            raise SpecdefError(
                f"`folders` must be finished; {shown(path)} is not. Let the run that writes it end, or delete it."
            )


def differences(signed: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What was done to the files since they were signed, as one sentence; both map names to digests.

    Example:
        >>> differences({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "5", "d": "3"})
        'The files are not as they were signed: b was changed; c is missing; d was added.'
        >>> differences({"a": "1", "b": "2"}, {"c": "1"})
        'The signature is of other files: none of its 2, such as a, is here. Give the folders that were signed.'
    """
    if signed.keys().isdisjoint(found):
        one = shown(min(signed, default="none"))
        return (
            f"The signature is of other files: none of its {len(signed)}, such as {one}, is here. "
            "Give the folders that were signed."
        )
    changed = [name for name in signed if name in found and signed[name] != found[name]]
    faults = (
        (changed, "was", "changed"),
        (signed.keys() - found, "is", "missing"),
        (found.keys() - signed, "was", "added"),
    )
    return f"The files are not as they were signed: {'; '.join(_said(*fault) for fault in faults if fault[0])}."


def _said(names: Iterator[str] | set[str] | list[str], verb: str, what: str) -> str:
    ordered = sorted(names)
    rest = len(ordered) - SHOWN
    listed = ", ".join(map(shown, ordered[:SHOWN])) + (f" and {rest} more" if rest > 0 else "")
    plural = {"was": "were", "is": "are"}[verb]
    return f"{listed} {verb if len(ordered) == 1 else plural} {what}"


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        if Path(parent) == folder:
            folders[:] = [name for name in folders if name not in IGNORED]
            names = [name for name in names if name not in IGNORED]
        for name in (*folders, *names):
            path = Path(parent) / name
            mode = path.lstat().st_mode
            if not is_unicode(name):
                raise SignatureError(f"{shown(path)} has a name that is not valid UTF-8; rename it.")
            if stat.S_ISLNK(mode):
                raise SignatureError(f"{shown(path)} is a link, which can lead elsewhere tomorrow; put the file there.")
            if stat.S_ISREG(mode):
                yield path
            elif not stat.S_ISDIR(mode):
                raise SignatureError(f"{shown(path)} is neither a file nor a folder; remove it.")


def _unreadable(error: OSError) -> NoReturn:
    raise SignatureError(f"{shown(error.filename)} cannot be read ({error.strerror}).") from error


def _place(path: Path) -> Path:
    """Where a name lies; a link that it may be is not followed."""
    return path.parent.resolve() / path.name
