"""Which matrices a lock changes. No tensor is touched here, so a mistyped option is answered at once."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Protocol

from specdef.architectures.resolve import ResolvedModel
from specdef.errors import PlanError
from specdef.linalg.matrix import matrix_shape
from specdef.locks.selection import select_layers

NUMBER = 5
"""Of matrices that are drawn where nothing else is asked for."""


class MatrixChoice(Protocol):
    """What a lock's options say of its matrices; see `InjectOptions`."""

    @property
    def rank(self) -> int:
        """Directions of each matrix."""

    @property
    def components(self) -> tuple[str, ...] | None:
        """What may be drawn from; None for the family's default."""

    @property
    def layers(self) -> tuple[int, ...] | None:
        """Where; None to draw."""

    @property
    def num_matrices(self) -> int | None:
        """How many are drawn."""

    @property
    def seed(self) -> int:
        """Of the draw."""


def choose_matrices(
    model: ResolvedModel,
    options: MatrixChoice,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    axes: bool = False,
    share: float | None = None,
) -> list[str]:
    """Names of the weight tensors to lock: all of `components` in `layers`, or a seeded draw.

    Args:
        model: the resolved architecture.
        options: what was asked.
        shapes: tensor name -> shape; a convolution counts as a matrix [out, in * height * width].
        axes: directions are rows or columns, of which a matrix has as many as it is long.
        share: of the matrices that may be drawn, instead of their number; one at least.

    Raises:
        PlanError: an unknown component or layer, more matrices than there are, or a rank beyond a matrix's rank.
    """
    names = _draw(model, options, share)
    for name in names:
        shape = matrix_shape(shapes[name])
        limit = max(shape) if axes else min(shape)
        if options.rank > limit:
            raise PlanError(
                f"`rank` must be at most {limit} for tensor {name} of shape {list(shapes[name])}; "
                f"got {options.rank}. Lower it, or choose other components."
            )
    return names


def _draw(model: ResolvedModel, options: MatrixChoice, share: float | None) -> list[str]:
    known = list(dict.fromkeys(component for component, _ in model.linears))
    if not known:
        raise PlanError(
            f"The {model.architecture.name} family has no matrices that a lock can change. Use preset exact."
        )
    components = options.components or tuple(c for c in model.architecture.inject_default if c in known)
    for component in components:
        if component not in known:
            raise PlanError(f"`components` must be drawn from {', '.join(known)} for this model; got {component!r}.")
    layers = select_layers(model.dims.num_layers, options.layers, None, options.seed)
    candidates = [key for key in model.linears if key[0] in components and key[1] in layers]
    if not candidates:
        raise PlanError(
            f"`layers` and `components` must select at least one matrix; got {', '.join(components)} in layers "
            f"{', '.join(map(str, layers))}, which hold none. Choose others."
        )
    if options.layers is not None and options.num_matrices is None and share is None:
        return [model.linears[key] for key in candidates]
    number = NUMBER if options.num_matrices is None else options.num_matrices
    if share is not None:
        number = max(1, round(share * len(candidates)))
    elif options.num_matrices is None:
        number = min(number, len(candidates))
    if not 1 <= number <= len(candidates):
        raise PlanError(
            f"`num_matrices` must lie between 1 and {len(candidates)}, the matrices to draw from; got {number}."
        )
    drawn = random.Random(f"inject:{options.seed}").sample(candidates, number)
    return [model.linears[key] for key in candidates if key in drawn]
