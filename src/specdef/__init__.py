"""Lock open-weight models against fine-tuning, and measure honestly whether a lock holds.

The verbs of the command line are functions here; importing this package is cheap, heavy libraries load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from specdef import _register

if TYPE_CHECKING:
    from specdef.api import lock as lock
    from specdef.curvature.measure import CurvatureReport as CurvatureReport
    from specdef.curvature.measure import measure_curvature as measure_curvature
    from specdef.errors import SpecdefError as SpecdefError
    from specdef.in_memory import lock_module as lock_module
    from specdef.inspection import InspectReport as InspectReport
    from specdef.inspection import inspect_model as inspect_model
    from specdef.measuring import attack as attack
    from specdef.measuring import certify_model as certify_model
    from specdef.measuring import undo as undo
    from specdef.models import fetch as fetch
    from specdef.multiplier_search import find_multiplier as find_multiplier
    from specdef.publish import LockReport as LockReport
    from specdef.restore import unlock as unlock
    from specdef.verification import VerifyReport as VerifyReport
    from specdef.verification import verify as verify

__version__ = "0.1.0"

_HOMES = {
    # locking
    "lock": "specdef.api",
    "unlock": "specdef.restore",
    "lock_module": "specdef.in_memory",
    "LockReport": "specdef.publish",
    # checking
    "verify": "specdef.verification",
    "inspect_model": "specdef.inspection",
    "VerifyReport": "specdef.verification",
    "InspectReport": "specdef.inspection",
    # measuring
    "attack": "specdef.measuring",
    "certify_model": "specdef.measuring",
    "find_multiplier": "specdef.multiplier_search",
    "undo": "specdef.measuring",
    "measure_curvature": "specdef.curvature.measure",
    "CurvatureReport": "specdef.curvature.measure",
    # models and failures
    "fetch": "specdef.models",
    "SpecdefError": "specdef.errors",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'specdef' has no attribute {name!r}")


_register.install()
