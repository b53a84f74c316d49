"""Which matrices an inject lock replaces. No tensor is touched here, so a mistyped option is answered at once."""

from __future__ import annotations

import random
from collections.abc import Mapping

from specdef.architectures.resolve import ResolvedModel
from specdef.errors import PlanError
from specdef.locks.kinds.inject.options import InjectOptions
from specdef.locks.selection import select_layers


def choose_matrices(model: ResolvedModel, options: InjectOptions, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of the weight tensors to lock: all of `components` in `layers`, or a seeded draw.

    Args:
        model: the resolved architecture.
        options: what was asked.
        shapes: tensor name -> shape.

    Raises:
        PlanError: an unknown component or layer, more matrices than there are, or a rank beyond a matrix's rank.
    """
    names = _draw(model, options)
    for name in names:
        limit = max(shapes[name]) if options.basis == "axis" else min(shapes[name])
        if options.rank > limit:
            raise PlanError(
                f"`rank` must be at most {limit} for tensor {name} of shape {list(shapes[name])}; "
                f"got {options.rank}. Lower it, or choose other components."
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
    if options.layers is not None and options.num_matrices is None:
        return [model.linears[key] for key in candidates]
    number = 5 if options.num_matrices is None else options.num_matrices
    if options.num_matrices is None:
        number = min(number, len(candidates))
    if not 1 <= number <= len(candidates):
        raise PlanError(
            f"`num_matrices` must lie between 1 and {len(candidates)}, the matrices to draw from; got {number}."
        )
    drawn = random.Random(f"inject:{options.seed}").sample(candidates, number)
    return [model.linears[key] for key in candidates if key in drawn]
