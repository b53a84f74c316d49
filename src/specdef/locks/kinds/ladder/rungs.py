"""Which channels become rungs and how hot each is: from measures of a model to powers of two.

A *rung* is one scaled channel of a pair. Its *level* is log2 of how far the outputs move per unit of learning rate when
its hot side trains. Rungs lie apart, so that at any one learning rate few of them learn: those well above have left the
range in which the model survives, those well below stand still.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from specdef.architectures.resolve import ResolvedPair
from specdef.locks.kinds.ladder.measure import Measured, PairMeasure, Values

Side = Literal["consumer", "producer"]
WRITERS = ("vo", "updown", "fc", "head", "conv")
"""Pairs whose consumers write to the residual stream or to the logits: in the last layer a constant channel of theirs
teaches one bias on the logits and nothing else."""
NORMS = ("norm", "head")
"""Pairs whose producers are a norm's own weights, which an attacker may train alone: they get a rung of their own."""


@dataclass(frozen=True)
class Rung:
    """A channel to scale.

    Attributes:
        pair: whose.
        side: which side is hot: its weights are divided, so that a step of theirs counts for more.
        channels: candidates in order of preference.
        constancies: of the candidates; None where they cannot be measured.
        slopes: log2 of the sum of |gradient| over the unlocked side, by channel.
    """

    pair: ResolvedPair
    side: Side
    channels: tuple[int, ...]
    constancies: tuple[float, ...] | None
    slopes: Values


def rungs_of(pair: ResolvedPair, measure: PairMeasure, seed: int) -> list[Rung]:
    """The rungs a pair gives: a hot consumer, and for a norm a hot producer.

    Args:
        pair: of the model.
        measure: its channels.
        seed: of the order in which channels are tried where constancy cannot be measured.
    """
    if measure.constancy is None:
        order = random.Random(f"{seed}:{pair.id}").sample(range(pair.size), pair.size)
    else:
        order = np.argsort(-measure.constancy, kind="stable").tolist()
    sides: list[tuple[Side, Values]] = [("consumer", measure.consumer)]
    if pair.kind in NORMS:
        sides.append(("producer", measure.producer))
    found = []
    for side, sums in sides:
        with np.errstate(divide="ignore"):
            slopes = np.log2(sums)
        alive = tuple(channel for channel in order if math.isfinite(slopes[channel]))
        constancies = None if measure.constancy is None else tuple(float(measure.constancy[c]) for c in alive)
        if alive:
            found.append(Rung(pair, side, alive, constancies, slopes))
    return found


def groups_of(rungs: Sequence[Rung]) -> list[list[Rung]]:
    """Rungs in groups of one level, from the hottest.

    The final norm comes first, then the last layer's pairs one by one, those that write to the residual stream before
    the norms and the most constant before others; then all pairs of a layer together, layer by layer to the first.
    """
    by_pair: dict[str, list[Rung]] = {}
    for rung in rungs:
        by_pair.setdefault(rung.pair.id, []).append(rung)
    layers = sorted({rung.pair.layer for rung in rungs if rung.pair.layer is not None}, reverse=True)
    last = layers[0] if layers else None
    alone = [group for group in by_pair.values() if group[0].pair.layer in (None, last)]
    alone.sort(key=lambda group: _first(group[0]))
    together = [[rung for rung in rungs if rung.pair.layer == layer] for layer in layers[1:]]
    return [*alone, *together]


def _first(rung: Rung) -> tuple[bool, bool, float]:
    constancy = rung.constancies[0] if rung.constancies else 0.0
    return rung.pair.layer is not None, rung.pair.kind not in WRITERS, -constancy


def levels_of(groups: Sequence[Sequence[Rung]], top: int, measured: Measured, margin: float) -> list[float]:
    """The level of every group, evenly spaced from what 2^top makes of the first rung down to `margin` over the model.

    Args:
        groups: from the hottest.
        top: exponent of the hottest rung.
        measured: the model.
        margin: in powers of two.
    """
    first = groups[0][0]
    highest = top + float(first.slopes[first.channels[0]])
    lowest = min(highest, math.log2(measured.total) + margin)
    return [float(level) for level in np.linspace(highest, lowest, len(groups))]
