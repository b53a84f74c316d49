"""`lock`: presets and options as a user gives them, turned into one plan and one locked folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.errors import PlanError
from specdef.linalg.multiplier import exponent_of, parse_multiplier
from specdef.locks.matrices import InjectOptions, check_options
from specdef.locks.plan import FoldOptions, check_pair_kinds

if TYPE_CHECKING:
    from specdef.locks.lock import LockReport

PRESETS = ("exact", "paper")
_FOLD_ONLY = ("channels", "pairs", "direction")
_INJECT_ONLY = ("top_k", "components", "basis", "form")


def lock(
    model: Path | str,
    out: Path | str,
    *,
    preset: str = "exact",
    multiplier: str | float | None = None,
    layers: Sequence[int] | None = None,
    num_layers: int | None = None,
    seed: int = 0,
    key: Path | str | None = None,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
    **method_options: Any,
) -> LockReport:
    """Write a locked copy of a model and the private key that undoes it.

    Args:
        model: a model folder, a hub id, or ``smollm2-135m``.
        out: the folder to create.
        preset: ``exact`` (fold lock: power-of-two channel scaling, bit-identical function, loads everywhere) or
            ``paper`` (inject lock: Construction 1 of the main paper, needs ``import specdef`` to load).
        multiplier: alpha, for example ``"2^20"``; the preset's default (2^20, 1e4) when None.
        layers: layer numbers to touch; all (``exact``) or five drawn modules (``paper``) when None.
        num_layers: draw this many at random instead.
        seed: decides every random draw.
        key: where the private key goes; ``OUT.specdef-key`` when None.
        dry_run: plan and check only, write nothing.
        progress: called with the number of bytes just read.
        **method_options: ``exact``: channels, pairs, direction. ``paper``: top_k, components, basis, form.

    Returns:
        What was done.

    Raises:
        SpecdefError: bad input; nothing is left behind.
    """
    options = make_options(
        preset, multiplier, layers=layers, num_layers=num_layers, seed=seed, method_options=method_options
    )
    from specdef.locks.lock import lock_folder
    from specdef.models.sources import find_model

    return lock_folder(
        find_model(str(model)),
        Path(out),
        options,
        key=None if key is None else Path(key),
        dry_run=dry_run,
        progress=progress,
    )


def make_options(
    preset: str,
    multiplier: str | float | None,
    *,
    layers: Sequence[int] | None,
    num_layers: int | None,
    seed: int,
    method_options: dict[str, Any],
) -> FoldOptions | InjectOptions:
    """A preset with the user's changes.

    Args:
        preset: ``exact`` or ``paper``.
        multiplier: as typed; the preset's own when None.
        layers: layer numbers, or None.
        num_layers: how many to draw, or None.
        seed: decides every draw.
        method_options: the preset's own options; None values count as not given.

    Raises:
        PlanError: an unknown preset, or an option that belongs to the other one.
    """
    if preset not in PRESETS:
        raise PlanError(f"`preset` must be exact or paper; got {preset!r}.")
    given = {name: value for name, value in method_options.items() if value is not None}
    allowed = _FOLD_ONLY if preset == "exact" else _INJECT_ONLY
    for name in given:
        if name not in allowed:
            raise PlanError(f"`{name}` is no option of preset {preset}, which has {', '.join(allowed)}. Leave it out.")
    for name in ("pairs", "components"):
        if name in given:
            given[name] = tuple(given[name])
    common: dict[str, Any] = {
        "layers": None if layers is None else tuple(layers),
        "num_layers": num_layers,
        "seed": seed,
    }
    if multiplier is not None:
        common["multiplier"] = parse_multiplier(str(multiplier))
    if preset == "exact":
        if multiplier is not None:
            exponent_of(common["multiplier"])
        if "pairs" in given:
            check_pair_kinds(given["pairs"])
        return FoldOptions(**common, **given)
    options = InjectOptions(**common, **given)
    check_options(options)
    return options
