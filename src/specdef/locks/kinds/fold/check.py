"""Is a fold lock in the weights: beside the original number by number, or from the weights alone where they tell."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from specdef.architectures.channels import (
    PairImbalance,
    ScaledChannel,
    channel_exponents,
    channel_logs,
    pair_imbalances,
)
from specdef.architectures.resolve import ResolvedPair
from specdef.checkpoint.reader import Checkpoint
from specdef.locks.base import Check, Evidence, Sign
from specdef.locks.recognise import resolve_locked

MEDIAN_TOLERANCE = 2
"""How far, in powers of two, the typical recomputed exponent may lie from the claim."""
NATURAL_DEVIATION = 3.0
"""How far, in powers of two, a channel may lie from its pair's median before it is locked. A factor is seen for certain
when it exceeds the threshold of its pair by as much."""
TELLING_IMBALANCE = 16
"""From this exponent on a pair scaled in most of its channels stands out by the medians of its sides: unlocked pairs
differ by some eight powers of two at most, locked ones by at least half the exponent."""


def check(checkpoint: Checkpoint, strength: Mapping[str, Any], original: Checkpoint | None) -> Check:
    """Compare the manifest's claims with the weights.

    Args:
        checkpoint: the locked folder.
        strength: of its manifest, well-formed.
        original: the unlocked model; None leaves what natural scales hide untold.
    """
    pairs = resolve_locked(checkpoint).pairs
    exponent = int(strength["exponent"]) * (1 if strength["direction"] == "up" else -1)
    claimed = {str(kind): int(number) for kind, number in strength["pairs"].items()}
    if original is not None:
        return _against_original(original, checkpoint, pairs, exponent, claimed)
    most = {pair.id for pair in pairs if 2 * int(strength["channels_per_pair"]) >= pair.size}
    seen = pair_imbalances(checkpoint, [pair for pair in pairs if pair.id not in most])
    nearest = {pair.id: _nearest(pair.scaled, exponent) for pair in seen}
    near = [channel for channel in nearest.values() if channel is not None]
    counted = [pair.kind for pair in seen if nearest[pair.id] is not None]
    counted += _imbalanced(checkpoint, [pair for pair in pairs if pair.id in most], exponent)
    agrees = not near or abs(statistics.median(near) - exponent) <= MEDIAN_TOLERANCE
    detail, complete = _counts("look scaled by about", exponent, claimed, counted)
    if agrees and complete:
        return Check("lock", True, detail)
    hidden = [pair.kind for pair in seen if not pair.scaled and abs(exponent) < pair.threshold + NATURAL_DEVIATION]
    hidden += [str(pair.kind) for pair in pairs if pair.id in most and abs(exponent) < TELLING_IMBALANCE]
    if agrees and _counts("", exponent, claimed, [*counted, *hidden])[1]:
        return Check("lock", None, f"{detail}; the others cannot be told from natural scales without --original")
    return Check("lock", False, detail)


def _against_original(
    original: Checkpoint, locked: Checkpoint, pairs: Sequence[ResolvedPair], exponent: int, claimed: Mapping[str, int]
) -> Check:
    exponents = channel_exponents(original, locked, pairs)
    scaled = [pair for pair in pairs if (exponents[pair.id] == exponent).any()]
    detail, complete = _counts("equal the original's times", exponent, claimed, [str(pair.kind) for pair in scaled])
    return Check("lock", complete, detail)


def _counts(how: str, exponent: int, claimed: Mapping[str, int], found: Sequence[str]) -> tuple[str, bool]:
    counts = {kind: min(found.count(kind), number) for kind, number in claimed.items()}
    words = ", ".join(f"{counts[kind]}/{claimed[kind]} {kind}" for kind in claimed)
    return f"channels {how} 2^{exponent} in {words} pairs", counts == claimed


def _imbalanced(checkpoint: Checkpoint, pairs: Sequence[ResolvedPair], exponent: int) -> list[str]:
    """Kinds of the pairs whose producers as a whole are scaled apart from their consumers, in the claimed direction."""
    kinds = []
    for pair, (producer, consumer) in zip(pairs, channel_logs(checkpoint, pairs), strict=True):
        alive = np.isfinite(producer) & np.isfinite(consumer)
        apart = float(np.median((producer - consumer)[alive])) if alive.any() else 0.0
        if abs(exponent) >= TELLING_IMBALANCE and apart * np.sign(exponent) >= abs(exponent) / 2:
            kinds.append(str(pair.kind))
    return kinds


def _nearest(channels: Iterable[ScaledChannel], exponent: int) -> int | None:
    """The scaled channel's exponent nearest to the claim, if any is near."""
    near = [c.exponent for c in channels if abs(c.exponent - exponent) <= max(3, min(8, abs(exponent) // 2))]
    return min(near, key=lambda found: abs(found - exponent), default=None)


def recognise(name: str, evidence: Evidence) -> Sign | None:
    """Channels whose two sides are scaled apart."""
    scaled: list[PairImbalance] = [pair for pair in evidence.pairs if pair.scaled]
    if not scaled:
        return None
    exponents = Counter(abs(channel.exponent) for pair in scaled for channel in pair.scaled)
    kinds = dict(Counter(pair.kind for pair in scaled))
    parts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    layers = {pair.layer for pair in scaled if pair.layer is not None}
    return Sign(
        lock=name,
        exponent=exponents.most_common(1)[0][0],
        found=f"scaled channels in {parts} pairs",
        pairs=kinds,
        layers=tuple(sorted(layers)),
    )
