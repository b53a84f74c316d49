"""Lock open-weight models against fine-tuning, and measure honestly whether a lock holds.

The verbs of the command line are functions here; importing this package is cheap, heavy libraries load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from specdef.integrations import transformers_autoload as _autoload

if TYPE_CHECKING:
    from specdef.analysis.curvature.measure import CurvatureReport as CurvatureReport
    from specdef.analysis.curvature.measure import measure_curvature as measure_curvature
    from specdef.analysis.inspect import InspectReport as InspectReport
    from specdef.analysis.inspect import inspect_model as inspect_model
    from specdef.certify.api import attack as attack
    from specdef.certify.api import certify_model as certify_model
    from specdef.certify.api import undo as undo
    from specdef.certify.multiplier_search import find_multiplier as find_multiplier
    from specdef.defences.defend import defend as defend
    from specdef.errors import SpecdefError as SpecdefError
    from specdef.locks.in_memory import lock_module as lock_module
    from specdef.locks.lock import LockReport as LockReport
    from specdef.locks.presets import lock as lock
    from specdef.locks.unlock import unlock as unlock
    from specdef.locks.verify import VerifyReport as VerifyReport
    from specdef.locks.verify import verify as verify
    from specdef.models.bundled import fetch as fetch

__version__ = "0.1.0"

_HOMES = {
    # locking
    "lock": "specdef.locks.presets",
    "unlock": "specdef.locks.unlock",
    "lock_module": "specdef.locks.in_memory",
    "LockReport": "specdef.locks.lock",
    # defending
    "defend": "specdef.defences.defend",
    # checking
    "verify": "specdef.locks.verify",
    "inspect_model": "specdef.analysis.inspect",
    "VerifyReport": "specdef.locks.verify",
    "InspectReport": "specdef.analysis.inspect",
    # measuring
    "attack": "specdef.certify.api",
    "certify_model": "specdef.certify.api",
    "find_multiplier": "specdef.certify.multiplier_search",
    "undo": "specdef.certify.api",
    "measure_curvature": "specdef.analysis.curvature.measure",
    "CurvatureReport": "specdef.analysis.curvature.measure",
    # models and failures
    "fetch": "specdef.models.bundled",
    "SpecdefError": "specdef.errors",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'specdef' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


_autoload.install()
