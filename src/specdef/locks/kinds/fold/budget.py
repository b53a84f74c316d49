"""A fold lock within a runtime budget: pairs left out, the exponent lowered, channels in whole blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from specdef.architectures.resolve import ResolvedModel, ResolvedPair
from specdef.errors import PlanError
from specdef.locks.kinds.fold.options import FoldOptions
from specdef.locks.runtimes import block_of, broken, claims_of, limit, most_channels, reasons, survival


@dataclass(frozen=True)
class Budgeted:
    """What of a lock its runtimes leave.

    Attributes:
        options: with channels in whole blocks.
        exponent: as asked, or as high as a pair kind survives.
        pairs: those that survive it.
        left_out: pair id -> why.
    """

    options: FoldOptions
    exponent: int
    pairs: tuple[ResolvedPair, ...]
    left_out: dict[str, str]


def within_budget(model: ResolvedModel, pairs: Sequence[ResolvedPair], options: FoldOptions, exponent: int) -> Budgeted:
    """Keep to what every named runtime survives.

    The multiplier stays as asked while a kind of pair survives it, and the other kinds are left out. Where none does,
    it falls to the largest that one survives.

    Args:
        model: the resolved architecture.
        pairs: those asked for.
        options: what was asked.
        exponent: log2 of the multiplier asked for.

    Raises:
        PlanError: nothing survives, a kind asked for by name does not, or the model stores its matrices the other way.
    """
    names, direction = options.runtimes, options.direction
    if not names:
        return Budgeted(options, exponent, tuple(pairs), {})
    block = block_of(names)
    if block > 1 and model.architecture.transposed:
        raise PlanError(
            f"`runtimes` must be formats without blocks for {model.architecture.name}, which stores its matrices "
            f"transposed; got {', '.join(names)}. Leave out those with blocks."
        )
    if block > 1 and any(pair.kind == "conv" for pair in pairs):
        raise PlanError(
            f"`runtimes` must be formats without blocks for {model.architecture.name}, whose weights are convolutions; "
            f"got {', '.join(names)}. Leave out those with blocks."
        )
    limits = {pair.kind: limit(names, pair.kind, direction) for pair in pairs}
    chosen = min(exponent, max(limits.values()))
    if chosen < 1:
        raise PlanError(
            f"`runtimes` must leave a pair to scale; {', '.join(names)} survive none in {direction}. Name fewer."
        )
    lost = sorted(str(kind) for kind, most in limits.items() if most < chosen)
    if lost and options.pairs is not None:
        raise PlanError(
            f"`pairs` {', '.join(lost)} must be left out with `runtimes` {', '.join(names)} at 2^{chosen} "
            f"({reasons(names, lost[0], direction, chosen)}). Leave them out, or give a smaller `multiplier`."
        )
    channels = -(-options.channels // block) * block
    if channels > most_channels(names):
        raise PlanError(
            f"`channels` must be at most {most_channels(names)} a pair for runtimes {', '.join(names)}; it is "
            f"{channels}, in whole blocks of {block}. Scale fewer, or name fewer runtimes."
        )
    return Budgeted(
        replace(options, channels=channels),
        chosen,
        tuple(pair for pair in pairs if limits[pair.kind] >= chosen),
        {pair.id: reasons(names, str(pair.kind), direction, chosen) for pair in pairs if limits[pair.kind] < chosen},
    )


def runtime_claims(kinds: Iterable[str], exponent: int, options: FoldOptions) -> dict[str, Any]:
    """What the manifest says of runtimes, by the table of rules: what was planned for, what survives, what breaks.

    Args:
        kinds: pair kinds that are scaled.
        exponent: log2 of the multiplier.
        options: with the channels as planned.
    """
    lost = broken(kinds, exponent, options.direction, block_of(options.runtimes), options.channels)
    return claims_of(lost, options.runtimes)


def cache_claim(kinds: Iterable[str], exponent: int, options: FoldOptions) -> str:
    """What becomes of value channels in a narrow cache of keys and values."""
    if "vo" not in kinds:
        return "no value channel is scaled, so a cache keeps what the original's keeps"
    own = "a cache in the model's own dtype is exact"
    if exponent <= limit(["f16-cache"], "vo", options.direction):
        return f"{own}; a float16 cache holds the scaled value channels, an fp8 cache may not"
    if options.direction == "up":
        return f"{own}; a float16 or fp8 cache overflows on scaled value channels"
    return f"{own}; a float16 or fp8 cache loses scaled value channels"


def runtime_remarks(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """For whoever locks: where the model will not run as the original does."""
    if not claims["breaks"]:
        return (survival(claims),)
    measure = "`specdef verify OUT --runtime NAME` measures"
    return (f"{survival(claims)} Plan for those that you need with `--runtimes NAME,...`; {measure}.",)
