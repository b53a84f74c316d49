"""Which matrices an inject lock replaces. No tensor is touched here, so a mistyped option is answered at once."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from specdef.architectures.resolve import ResolvedModel
from specdef.errors import PlanError
from specdef.locks.plan import select_layers


@dataclass(frozen=True)
class InjectOptions:
    """What the user asked of an inject lock; the defaults are the paper's.

    Attributes:
        multiplier: alpha, any number above 1.
        top_k: k, singular values scaled per matrix.
        components: matrices to draw from; the family's default (gate, output and value projections) when None.
        layers: lock every one of `components` in these layers; None to draw.
        num_layers: how many matrices to draw when `layers` is None (5 when None).
        basis: ``svd`` or ``axis``.
        form: C stored ``dense`` or ``low_rank``.
        seed: decides every random draw.
    """

    multiplier: float = 1e4
    top_k: int = 25
    components: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    num_layers: int | None = None
    basis: Literal["svd", "axis"] = "svd"
    form: Literal["dense", "low_rank"] = "dense"
    seed: int = 0


def check_options(options: InjectOptions) -> None:
    """Raise PlanError for options no matrix could satisfy."""
    if options.top_k < 1:
        raise PlanError(f"`top_k` must be at least 1; got {options.top_k}.")
    if options.basis not in ("svd", "axis"):
        raise PlanError(f"`basis` must be svd or axis; got {options.basis!r}. Use svd for the paper's lock.")
    if options.form not in ("dense", "low_rank"):
        raise PlanError(f"`form` must be dense or low_rank; got {options.form!r}. Use dense for the paper's lock.")
    if options.basis == "axis" and options.form == "low_rank":
        raise PlanError("`form` must be left out with basis axis, whose compensation is diagonal; got 'low_rank'.")


def choose_matrices(model: ResolvedModel, options: InjectOptions, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of the weight tensors to lock: all of `components` in `layers`, or a seeded draw.

    Args:
        model: the resolved architecture.
        options: what was asked.
        shapes: tensor name -> shape.

    Raises:
        PlanError: an unknown component or layer, more matrices than there are, or top_k beyond a matrix's rank.
    """
    names = _draw(model, options)
    for name in names:
        limit = max(shapes[name]) if options.basis == "axis" else min(shapes[name])
        if options.top_k > limit:
            raise PlanError(
                f"`top_k` must be at most {limit} for tensor {name} of shape {list(shapes[name])}; "
                f"got {options.top_k}. Lower it, or choose other components."
            )
    return names


def _draw(model: ResolvedModel, options: InjectOptions) -> list[str]:
    known = list(dict.fromkeys(component for component, _ in model.linears))
    if not known:
        raise PlanError(
            f"The {model.architecture.name} family has no matrices an inject lock can replace. Use preset exact."
        )
    components = options.components or model.architecture.inject_default
    for component in components:
        if component not in known:
            raise PlanError(f"`components` must be drawn from {', '.join(known)} for this model; got {component!r}.")
    layers = select_layers(model.dims.num_layers, options.layers, None, options.seed)
    candidates = [key for key in model.linears if key[0] in components and key[1] in layers]
    if options.layers is not None and options.num_layers is None:
        return [model.linears[key] for key in candidates]
    number = 5 if options.num_layers is None else options.num_layers
    if options.num_layers is None:
        number = min(number, len(candidates))
    if not 1 <= number <= len(candidates):
        raise PlanError(
            f"`num_layers` must lie between 1 and {len(candidates)}, the matrices to draw from; got {number}."
        )
    drawn = random.Random(f"inject:{options.seed}").sample(candidates, number)
    return [model.linears[key] for key in candidates if key in drawn]
