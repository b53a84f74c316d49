"""Teach transformers and diffusers to load inject-locked folders, without importing them.

If a library's quantizer registry is loaded already, specdef registers at once. Otherwise a finder waits for that one
module and registers right after it has run, so the order of ``import specdef`` and of the library is free.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

REGISTRIES = {
    "transformers.quantizers.auto": "specdef.integrations.transformers",
    "diffusers.quantizers.auto": "specdef.integrations.diffusers",
}
"""A library's registry -> the module of ours that registers there."""


class _WaitForRegistry(MetaPathFinder):
    """Finds nothing itself; lets the standard finder locate a registry and adds a step after its execution."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A registry's own spec with registration appended; None for every other module."""
        if fullname not in REGISTRIES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_then_register(module: ModuleType) -> None:
            run(module)
            _register(fullname)

        spec.loader.exec_module = run_then_register  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Register with every library that is loaded, and with the others as soon as they are; again changes nothing."""
    for registry in REGISTRIES:
        if registry in sys.modules:
            _register(registry)
    if not any(isinstance(finder, _WaitForRegistry) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WaitForRegistry())


def _register(registry: str) -> None:
    importlib.import_module(REGISTRIES[registry]).register()
