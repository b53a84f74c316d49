"""Teach transformers to load inject-locked folders, without importing it.

If transformers' quantizer registry is loaded already, specdef registers at once. Otherwise a finder waits for that one
module and registers right after it has run, so the order of ``import specdef`` and ``import transformers`` is free.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

REGISTRY = "transformers.quantizers.auto"


class _WaitForRegistry(MetaPathFinder):
    """Finds nothing itself; lets the standard finder locate the registry and adds a step after its execution."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The registry's own spec with registration appended; None for every other module."""
        if fullname != REGISTRY:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_then_register(module: ModuleType) -> None:
            run(module)
            _register()

        spec.loader.exec_module = run_then_register  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Register now if transformers is loaded, else as soon as it is. Calling it again changes nothing."""
    if REGISTRY in sys.modules:
        _register()
    elif not any(isinstance(finder, _WaitForRegistry) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WaitForRegistry())


def _register() -> None:
    from specdef.integrations.transformers import register

    register()
