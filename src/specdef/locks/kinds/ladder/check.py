"""Is a ladder in the weights: beside the original number by number, or from the weights alone where they tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from specdef.architectures.channel_exponents import UNKNOWN, channel_exponents
from specdef.architectures.channels import pair_imbalances
from specdef.architectures.resolve import ResolvedPair
from specdef.checkpoint.reader import Checkpoint
from specdef.locks.base import Check, Evidence, Sign
from specdef.locks.kinds.fold.check import TELLING_EXPONENT
from specdef.locks.recognise import resolve_locked

NEAR = 8
"""How far, in powers of two, an exponent estimated from the weights alone may lie from the claim."""
LADDER_SPREAD = 10
"""Exponents of a lock this many powers of two apart are rungs; one factor for all shows within half of that."""
FEW = 4
"""Fewer scaled channels are no ladder."""

Exponents = Mapping[str, Sequence[int]]
"""Kind of pair -> exponents of its scaled channels, positive where the producer was scaled up."""


def check(checkpoint: Checkpoint, strength: Mapping[str, Any], original: Checkpoint | None) -> Check:
    """Compare the manifest's claims with the weights.

    Args:
        checkpoint: the locked folder.
        strength: of its manifest, well-formed.
        original: the unlocked model; None leaves what natural scales hide untold.
    """
    claimed: Exponents = strength["exponents"]
    pairs = resolve_locked(checkpoint).pairs
    if original is not None:
        found = _against(original, checkpoint, pairs)
        missing = {kind: unmatched(numbers, found.get(kind, ()), 0) for kind, numbers in claimed.items()}
        return Check(
            "lock", not any(missing.values()), _words("equal the original's times their factors", claimed, missing)
        )
    found = _alone(checkpoint, pairs)
    missing = {kind: unmatched(numbers, found.get(kind, ()), NEAR) for kind, numbers in claimed.items()}
    hidden = all(abs(number) < TELLING_EXPONENT for numbers in missing.values() for number in numbers)
    words = _words("look scaled by about their factors", claimed, missing)
    if any(missing.values()) and hidden:
        return Check("lock", None, f"{words}; the others cannot be told from natural scales without --original")
    return Check("lock", not any(missing.values()), words)


def _against(original: Checkpoint, locked: Checkpoint, pairs: Sequence[ResolvedPair]) -> dict[str, list[int]]:
    exponents = channel_exponents(original, locked, pairs)
    found: dict[str, list[int]] = {}
    for pair in pairs:
        scaled = exponents[pair.id]
        found.setdefault(str(pair.kind), []).extend(scaled[(scaled != 0) & (scaled != UNKNOWN)].tolist())
    return found


def _alone(checkpoint: Checkpoint, pairs: Sequence[ResolvedPair]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for pair in pair_imbalances(checkpoint, pairs):
        found.setdefault(pair.kind, []).extend(channel.exponent for channel in pair.scaled)
    return found


def unmatched(claimed: Sequence[int], found: Sequence[int], tolerance: int) -> list[int]:
    """The claimed exponents for which no found one is left, as few as can be; one of each matches one of the other.

    In ascending order each claim takes the smallest that is near enough: who comes later reaches no further down.
    """
    left = sorted(found)
    missing = []
    at = 0
    for number in sorted(claimed):
        while at < len(left) and left[at] < number - tolerance:
            at += 1
        if at < len(left) and left[at] <= number + tolerance:
            at += 1
        else:
            missing.append(number)
    return missing


def _words(how: str, claimed: Exponents, missing: Exponents) -> str:
    counts = ", ".join(
        f"{len(numbers) - len(missing[kind])}/{len(numbers)} {kind}" for kind, numbers in claimed.items()
    )
    return f"channels {how} in {counts} rungs"


def recognise(name: str, evidence: Evidence) -> Sign | None:
    """Channels scaled apart by factors of many sizes."""
    hot = [(pair, channel) for pair in evidence.pairs for channel in pair.scaled]
    sizes = np.array([abs(channel.exponent) for _, channel in hot])
    if len(sizes) < FEW:
        return None
    low, high = np.percentile(sizes, [10, 90])
    if high - low < LADDER_SPREAD:
        return None
    kinds: dict[str, int] = {}
    for pair in evidence.pairs:
        if pair.scaled:
            kinds[pair.kind] = kinds.get(pair.kind, 0) + 1
    parts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return Sign(
        lock=name,
        exponent=int(sizes.max()),
        found=f"channels scaled by factors from 2^{int(sizes.min())} to 2^{int(sizes.max())} in {parts} pairs",
        pairs=kinds,
        layers=tuple(sorted({pair.layer for pair, _ in hot if pair.layer is not None})),
        specificity=1,
    )
