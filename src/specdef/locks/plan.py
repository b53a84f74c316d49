"""A lock as data: which channels of which tensors are scaled by what power of two; applied elsewhere."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from specdef.architectures.spec import PAIR_KINDS
from specdef.errors import PlanError

Direction = Literal["up", "down"]


@dataclass(frozen=True)
class Edit:
    """Scale positions of one tensor axis by ``2^exponent``.

    Attributes:
        tensor: tensor name.
        axis: axis of the tensor.
        indices: positions on that axis.
        exponent: the power of two.
        offset: what the runtime adds to the stored value before use (Gemma's norms: 1).
    """

    tensor: str
    axis: int
    indices: tuple[int, ...]
    exponent: int
    offset: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return {
            "tensor": self.tensor,
            "axis": self.axis,
            "indices": list(self.indices),
            "exponent": self.exponent,
            "offset": self.offset,
        }


@dataclass(frozen=True)
class FoldOptions:
    """What the user asked of a fold lock.

    Attributes:
        multiplier: alpha, a power of two.
        channels: channels scaled per pair.
        direction: ``up`` scales the producer up (large activations), ``down`` scales it down (small ones).
        pairs: kinds of pairs to use; None for every kind the model has.
        layers: layer numbers; None for all.
        num_layers: draw this many layers at random instead.
        seed: decides every random draw.
    """

    multiplier: float = 2.0**20
    channels: int = 1
    direction: Direction = "up"
    pairs: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    num_layers: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class LockPlan:
    """A fold lock, ready to apply.

    Attributes:
        options: what was asked.
        exponent: log2 of the multiplier.
        channels: pair id -> channels scaled.
        edits: every scaling, in order.
        left_out: pair id -> why it is not locked; only where the user did not ask for its kind by name.
        headroom: dtype -> the rule that bounded the exponent, in words.
        layers: layers touched.
    """

    options: FoldOptions
    exponent: int
    channels: Mapping[str, tuple[int, ...]]
    edits: tuple[Edit, ...]
    left_out: Mapping[str, str]
    headroom: Mapping[str, str]
    layers: tuple[int, ...]


def select_layers(num_layers: int, layers: Sequence[int] | None, draw: int | None, seed: int) -> tuple[int, ...]:
    """The layers a lock touches: those named, or `draw` at random, or all.

    Args:
        num_layers: layers the model has.
        layers: numbers, each once, or None.
        draw: how many to draw, or None.
        seed: of the draw.

    Raises:
        PlanError: a number out of range, given twice, or both options at once.

    Example:
        >>> select_layers(4, [3, 1], None, seed=0)
        (1, 3)
    """
    if layers is not None and draw is not None:
        raise PlanError("`layers` and `num_layers` exclude each other; got both. Give one of them.")
    if layers is not None:
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
