"""Which layers and which kinds of pairs a lock touches; no tensor is read for it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from specdef.architectures.spec import PAIR_KINDS
from specdef.errors import PlanError

if TYPE_CHECKING:
    from specdef.architectures.resolve import ResolvedModel, ResolvedPair


def select_layers(num_layers: int, layers: Sequence[int] | None, draw: int | None, seed: int) -> tuple[int, ...]:
    """The layers a lock touches: those named, or `draw` at random, or all.

    Args:
        num_layers: layers the model has.
        layers: numbers, each once, or None.
        draw: how many to draw, or None.
        seed: of the draw.

    Raises:
        PlanError: no numbers, one out of range or given twice, or both options at once.

    Example:
        >>> select_layers(4, [3, 1], None, seed=0)
        (1, 3)
    """
    if layers is not None and draw is not None:
        raise PlanError("`layers` and `num_layers` exclude each other; got both. Give one of them.")
    if layers is not None:
        if isinstance(layers, str):
            raise PlanError(f"`layers` must be numbers, such as [0, 1]; got {layers!r}.")
        for layer in layers:
            if not 0 <= layer < num_layers:
                raise PlanError(
                    f"`layers` must lie between 0 and {num_layers - 1}; got {layer}. The model has {num_layers}."
                )
        if len(set(layers)) != len(layers) or not layers:
            raise PlanError(f"`layers` must name at least one layer, each once; got {list(layers)}.")
        return tuple(sorted(layers))
    if draw is None:
        return tuple(range(num_layers))
    if not 1 <= draw <= num_layers:
        raise PlanError(f"`num_layers` must lie between 1 and {num_layers}; got {draw}.")
    return tuple(sorted(random.Random(f"layers:{seed}").sample(range(num_layers), draw)))


def check_pair_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return `kinds` if each is a known kind of pair.

    Raises:
        PlanError: an unknown kind, or none.
    """
    chosen = tuple(kinds)
    for kind in chosen:
        if kind not in PAIR_KINDS:
            raise PlanError(f"`pairs` must be drawn from {', '.join(PAIR_KINDS)}; got {kind!r}.")
    if not chosen:
        raise PlanError(f"`pairs` must name at least one of {', '.join(PAIR_KINDS)}; got none.")
    return chosen


def select_pairs(model: ResolvedModel, kinds: Sequence[str] | None, layers: Sequence[int] | None) -> list[ResolvedPair]:
    """The pairs of some kinds in some layers.

    Args:
        model: whose.
        kinds: of pairs; every one it has when None.
        layers: their numbers; with those of no layer, all when None.

    Raises:
        PlanError: it has no such layer, no pair of a kind, or none that is left.
    """
    if layers is not None:
        select_layers(model.dims.num_layers, layers, None, seed=0)
    available = {pair.kind for pair in model.pairs}
    wanted = available if kinds is None else set(kinds)
    missing = sorted(wanted - available)
    excluded = (*model.withheld, *model.architecture.exclusions)
    reasons = "; ".join(f"{e.what}: {e.reason}" for e in excluded)
    if not available:
        raise PlanError(
            f"`model` must have a pair that scales exactly; this {model.architecture.name} checkpoint has none. Left "
            f"out there: {reasons}."
        )
    if missing:
        raise PlanError(
            f"`pairs` must be drawn from {', '.join(sorted(available))} for this {model.architecture.name} checkpoint; "
            f"got {', '.join(missing)}. Left out there: {reasons}."
        )
    chosen = [pair for pair in model.pairs if pair.kind in wanted and (layers is None or pair.layer in layers)]
    if not chosen:
        raise PlanError(
            f"`pairs` and `layers` select nothing in this checkpoint; it has {', '.join(sorted(available))}."
        )
    return chosen
