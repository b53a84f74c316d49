"""Kinds by name: the modules of one package, and what other packages offer through entry points."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

from specdef.core.text import did_you_mean, shown
from specdef.errors import SpecdefError

Kind = TypeVar("Kind")


@lru_cache(maxsize=64)
def _entry_points(
    group: str, ask: Callable[..., Any], path: tuple[str, ...]
) -> tuple[importlib.metadata.EntryPoint, ...]:
    """What packages on a path offer; asking reads every package's metadata, some 20 ms, so it is asked once."""
    return tuple(ask(group=group))


class Registry(Generic[Kind]):
    """The kinds of one noun (locks, tasks, ...), found by name and imported when first asked for.

    A kind of this project is one module (or package) of `package`. Its name is the module's, with ``-`` for ``_``, and
    the module's constant ``KIND`` is the kind. A kind of another package is an entry point of `group` that names such a
    constant: ``ladder = "their_package.ladder:KIND"``. Nothing lists the names anywhere.

    Args:
        argument: what the user typed a name as; it starts the error sentence.
        package: dotted name of the package that holds the kinds; modules that start with ``_`` are not kinds.
        group: entry-point group.
        spelling: from a module's name to the kind's.
        error: what is raised for an unknown name.

    Example:
        >>> from specdef.core.registry import Registry
        >>> Registry("colour", "specdef.theory", "no.such.group").names()[:2]
        ('activations', 'angles')
    """

    def __init__(
        self,
        argument: str,
        package: str,
        group: str,
        *,
        spelling: Callable[[str], str] = lambda module: module.replace("_", "-"),
        error: type[SpecdefError] = SpecdefError,
    ) -> None:
        self.argument, self.package, self.group = argument, package, group
        self._spelling, self._error = spelling, error
        self._loaded: dict[str, Kind] = {}

    def names(self) -> tuple[str, ...]:
        """Every kind's name, this project's first; nothing is imported for it."""
        return (*self._own(), *(name for name in self._foreign() if name not in self._own()))

    def get(self, name: str) -> Kind:
        """The kind of that name.

        Raises:
            SpecdefError: there is none (near names are said), another package's cannot be imported, or two claim it.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[Kind]:
        """Every kind; all are imported."""
        return iter([self.get(name) for name in self.names()])

    def _own(self) -> dict[str, str]:
        path = importlib.import_module(self.package).__path__
        modules = sorted(found.name for found in pkgutil.iter_modules(path) if not found.name.startswith("_"))
        return {self._spelling(module): module for module in modules}

    def _foreign(self) -> dict[str, list[importlib.metadata.EntryPoint]]:
        found: dict[str, list[importlib.metadata.EntryPoint]] = {}
        for point in _entry_points(self.group, importlib.metadata.entry_points, tuple(sys.path)):
            places = found.setdefault(point.name, [])
            if point.value not in [other.value for other in places]:  # one package seen twice on the path
                places.append(point)
        return found

    def _load(self, name: str) -> Kind:
        own, foreign = self._own(), self._foreign()
        places = [*([own[name]] if name in own else []), *(point.value for point in foreign.get(name, []))]
        if len(places) > 1:
            raise self._error(
                f"`{self.argument}` {shown(repr(name))} must be offered once; {shown(', '.join(places))} all offer it. "
                "Uninstall one."
            )
        if name in own:
            return cast(Kind, importlib.import_module(f"{self.package}.{own[name]}").KIND)
        if name in foreign:
            return self._load_foreign(foreign[name][0])
        hint = did_you_mean(name, self.names())
        raise self._error(f"`{self.argument}` must be one of {choices(self)}; got {shown(repr(name))}.{hint}")

    def _load_foreign(self, point: importlib.metadata.EntryPoint) -> Kind:
        try:
            return cast(Kind, point.load())
        except Exception as error:  # whatever a stranger's package raises while it is imported
            raise self._error(
                f"`{self.argument}` {shown(repr(point.name))} of package "
                f"{shown(point.dist.name if point.dist else point.value)} cannot be imported ({type(error).__name__}: "
                f"{shown(error)}). Repair or uninstall that package."
            ) from error


def choices(registry: Registry[Any]) -> str:
    """The names of a registry as a sentence lists them."""
    return ", ".join(map(shown, registry.names()))
