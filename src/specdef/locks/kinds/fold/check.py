"""Is a fold lock in the weights: beside the original number by number, or from the weights alone where they tell."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from specdef.architectures.channel_exponents import channel_exponents
from specdef.architectures.channels import PairImbalance, ScaledChannel, channel_logs, deviation, pair_imbalances
from specdef.architectures.resolve import ResolvedPair
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import CheckpointError
from specdef.locks.base import Check, Evidence, Sign
from specdef.locks.recognise import resolve_locked

MEDIAN_TOLERANCE = 2
"""How far, in powers of two, the typical recomputed exponent may lie from the claim."""
NATURAL_DEVIATION = 3.0
"""How far, in powers of two, a channel may lie from its pair's median before it is locked. A factor is seen for certain
when it exceeds the threshold of its pair by as much."""
TELLING_EXPONENT = 16
"""From this exponent on every scaled channel tells. A pair scaled in most of its channels stands out by the medians of
its sides: unlocked pairs differ by some eight powers of two at most, locked ones by at least half the exponent."""
UNSEEN_SHARE = 0.05
"""Share of a lock's channels that may be outliers by nature, so that they do not look scaled by about the claim."""


@dataclass(frozen=True)
class _Claim:
    """What a manifest claims: `channels` channels scaled by 2^exponent in so many pairs of each kind."""

    exponent: int
    channels: int
    pairs: Mapping[str, int]

    def counts(self, how: str, found: Sequence[str]) -> tuple[str, bool]:
        """In words how many of the claimed pairs are among `found` (their kinds), and whether all are."""
        counts = {kind: min(found.count(kind), number) for kind, number in self.pairs.items()}
        words = ", ".join(f"{counts[kind]}/{self.pairs[kind]} {kind}" for kind in self.pairs)
        return f"channels {how} 2^{self.exponent} in {words} pairs", counts == self.pairs

    def missing(self, shown: Sequence[tuple[str, int]]) -> int:
        """How many claimed channels are not there, from the kind and the number of scaled channels of every pair."""
        missing = 0
        for kind, number in self.pairs.items():
            best = sorted((min(channels, self.channels) for found, channels in shown if found == kind), reverse=True)
            missing += number * self.channels - sum(best[:number])
        return missing

    def shortage(self, missing: int) -> str:
        """In words that channels are missing."""
        total = self.channels * sum(self.pairs.values())
        return f", but only {total - missing} of the {total} channels claimed there"


def check(checkpoint: Checkpoint, strength: Mapping[str, Any], original: Checkpoint | None) -> Check:
    """Compare the manifest's claims with the weights.

    Args:
        checkpoint: the locked folder.
        strength: of its manifest, well-formed.
        original: the unlocked model; None leaves what natural scales hide untold.

    Raises:
        CheckpointError: the manifest claims more channels than a pair has.
    """
    pairs = resolve_locked(checkpoint).pairs
    exponent = int(strength["exponent"]) * (1 if strength["direction"] == "up" else -1)
    claimed = {str(kind): int(number) for kind, number in strength["pairs"].items()}
    claim = _Claim(exponent, int(strength["channels_per_pair"]), claimed)
    _refuse_more_than_there_are(claim, pairs)
    if original is not None:
        return _against_original(original, checkpoint, pairs, claim)
    return _alone(checkpoint, pairs, claim)


def _refuse_more_than_there_are(claim: _Claim, pairs: Sequence[ResolvedPair]) -> None:
    for kind in claim.pairs:
        size = max((pair.size for pair in pairs if pair.kind == kind), default=claim.channels)
        if claim.channels > size:
            raise CheckpointError(
                f"`channels_per_pair` in the manifest is malformed: it claims {claim.channels} channels in each {kind} "
                f"pair, which has {size}. Restore it from the published model."
            )


def _against_original(original: Checkpoint, locked: Checkpoint, pairs: Sequence[ResolvedPair], claim: _Claim) -> Check:
    exponents = channel_exponents(original, locked, pairs)
    shown = [(str(pair.kind), int((exponents[pair.id] == claim.exponent).sum())) for pair in pairs]
    detail, complete = claim.counts("equal the original's times", [kind for kind, channels in shown if channels])
    missing = claim.missing(shown)
    return Check("lock", missing == 0, detail + (claim.shortage(missing) if complete and missing else ""))


def _alone(checkpoint: Checkpoint, pairs: Sequence[ResolvedPair], claim: _Claim) -> Check:
    """What the locked weights show by themselves."""
    exponent = claim.exponent
    many = [pair for pair in pairs if 2 * claim.channels >= pair.size]
    fewer = [pair for pair in pairs if 2 * claim.channels < pair.size]
    seen = pair_imbalances(checkpoint, fewer)
    near = {pair.id: _near(pair.scaled, exponent) for pair in seen}
    nearest = [min(found, key=lambda e: abs(e - exponent)) for found in near.values() if found]
    agrees = not nearest or abs(statistics.median(nearest) - exponent) <= MEDIAN_TOLERANCE
    few = [(pair.kind, len(near[pair.id])) for pair in seen]
    most = _shown_by_most(checkpoint, many, exponent)
    detail, complete = claim.counts("look scaled by about", [kind for kind, channels in [*few, *most] if channels])
    missing = claim.missing([*few, *most])
    if agrees and not missing:
        return Check("lock", True, detail)
    if complete:
        detail += claim.shortage(missing) if missing else f", but typically by 2^{statistics.median(nearest):g}"
    possible = [
        (pair.kind, claim.channels if _may_hide_more(pair, near[pair.id], exponent) else len(near[pair.id]) + half)
        for pair, half in zip(seen, _half_dead(checkpoint, fewer, exponent), strict=True)
    ]
    possible += [(kind, claim.channels if abs(exponent) < TELLING_EXPONENT else channels) for kind, channels in most]
    _, all_pairs = claim.counts("", [kind for kind, channels in possible if channels])
    outliers = UNSEEN_SHARE * claim.channels * sum(claim.pairs.values())
    if agrees and all_pairs and claim.missing(possible) <= outliers:
        return Check("lock", None, f"{detail}; the others cannot be told from natural scales without --original")
    return Check("lock", False, detail)


def _may_hide_more(pair: PairImbalance, near: Sequence[int], exponent: int) -> bool:
    """Whether a pair may have more channels scaled by 2^exponent than stand out `near` it."""
    certain = pair.threshold + NATURAL_DEVIATION
    if near:
        return abs(exponent) < max(certain, TELLING_EXPONENT)
    return not pair.scaled and abs(exponent) < certain


def _half_dead(checkpoint: Checkpoint, pairs: Sequence[ResolvedPair], exponent: int) -> list[int]:
    """How many channels of each pair are all zero on one side, and on the other scaled as the claim has it."""
    counts = []
    for producer, consumer in channel_logs(checkpoint, pairs):
        half = np.isfinite(producer) != np.isfinite(consumer)
        off = np.abs(deviation(producer) - deviation(consumer) - exponent)
        counts.append(int((half & (off <= _slack(exponent))).sum()))
    return counts


def _shown_by_most(checkpoint: Checkpoint, pairs: Sequence[ResolvedPair], exponent: int) -> list[tuple[str, int]]:
    """Kind and number of scaled channels of pairs that are claimed to be scaled in at least half of their channels.

    Such a pair shows as a whole: its producers lie apart from its consumers in the claimed direction. Its channels are
    told from those left alone, which lie apart by twice the exponent less. The upper median is a scaled channel's even
    where only half are scaled.
    """
    shown = []
    for pair, (producer, consumer) in zip(pairs, channel_logs(checkpoint, pairs), strict=True):
        alive = np.isfinite(producer) & np.isfinite(consumer)
        apart = np.sort((producer - consumer)[alive] * np.sign(exponent))
        typical = float(apart[len(apart) // 2]) if len(apart) else 0.0
        whole = abs(exponent) >= TELLING_EXPONENT and typical >= abs(exponent) / 2
        shown.append((str(pair.kind), int((apart >= typical - abs(exponent)).sum()) if whole else 0))
    return shown


def _near(channels: Iterable[ScaledChannel], exponent: int) -> list[int]:
    """The exponents of scaled channels that are near the claim."""
    return [c.exponent for c in channels if abs(c.exponent - exponent) <= _slack(exponent)]


def _slack(exponent: int) -> int:
    return max(3, min(8, abs(exponent) // 2))


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
