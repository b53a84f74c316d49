"""`lock_module` and `unlock_module`: locks on a model in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from specdef.linalg.multiplier import parse_multiplier
from specdef.locks.base import LOCKS, ModuleKey, ModuleLock
from specdef.locks.presets import DEFAULT, WITH_TARGETS, find_preset

if TYPE_CHECKING:
    from torch import nn


def lock_module(
    module: nn.Module,
    *,
    preset: str | None = None,
    targets: Sequence[str] | None = None,
    multiplier: str | float | None = None,
    **options: Any,
) -> ModuleLock:
    """Lock a model in memory, in place; all of it or, on an error, nothing.

    Args:
        module: a transformers model (``exact``, ``ladder``), or any module with linear layers (``paper``).
        preset: ``exact``, ``ladder``, ``paper`` or a kind of lock by its own name; ``exact`` when None, ``paper`` when
            layers are named by `targets`.
        targets: ``paper``: layer names as in ``named_modules``, shell wildcards allowed ("*.gate_proj").
        multiplier: alpha, for example ``"2^20"``; the preset's default when None.
        **options: ``exact``: channels, pairs, direction, layers, num_layers, seed. ``ladder``: margin, pairs, layers,
            seed. ``paper``: rank, basis, form, compensation_dtype, tolerance, generator.

    Returns:
        The kind's figures, and the key that `unlock_module` needs; it holds original weights.

    Raises:
        PlanError: it cannot be locked as asked; the message names the module or the option.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        >>> locked = lock_module(model, targets=["0"], rank=2)
        >>> type(model[0]).__name__, locked.report.layers[0].entry.side
        ('DeformedLinear', 'output')
        >>> unlock_module(model, locked.key)
        >>> type(model[0]).__name__
        'Linear'
    """
    kind, given = find_preset(preset or (DEFAULT if targets is None else WITH_TARGETS))
    given |= options
    if targets is not None:
        given["targets"] = targets
    if multiplier is not None:
        given["multiplier"] = parse_multiplier(str(multiplier))
    return kind.lock_module(module, given)


def unlock_module(module: nn.Module, key: ModuleKey) -> None:
    """Put the original weights back, to the bit.

    Args:
        module: the model `lock_module` locked; training since then is lost where the lock changed weights.
        key: of its `ModuleLock`; it may have been pickled.

    Raises:
        PlanError: the key is another model's.
    """
    LOCKS.get(key.lock).unlock_module(module, key.originals)
