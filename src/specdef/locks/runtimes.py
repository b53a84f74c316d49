"""Which runtimes a channel scaling survives: one table, by pair kind, direction and exponent.

Survive means: the function loses no more than the format loses of the unlocked model. Every entry is what
`experiments/results/runtimes.md` measured on SmolLM2-135M, or what a format's range says. It is a rule, not a promise
for another model: `specdef verify DIR --runtime NAME` measures.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from specdef.errors import PlanError
from specdef.linalg.exponent import MAX_EXPONENT

FLOAT16_SMALLEST = 2.0**-14
"""Smallest normal float16: below it a scale loses digits."""


@dataclass(frozen=True)
class Rule:
    """What a runtime's format does to scaled channels.

    Attributes:
        why: what would be lost, for whoever reads that a pair was left out.
        limits: (pair kind or ``*``, direction) -> largest exponent; `MAX_EXPONENT` where nothing is said.
        block: aligned channels that share one scale, which a lock must scale together.
        levels: largest level of a block; its scale, largest weight / levels, is a float16 and must stay normal. 0 where
            blocks have none.
        channels: most channels of a pair that may be scaled.
    """

    why: str
    limits: Mapping[tuple[str, str], int] = field(default_factory=dict)
    block: int = 1
    levels: int = 0
    channels: int = sys.maxsize

    def limit(self, kind: str, direction: str) -> int:
        """Largest exponent of a kind of pair in a direction; 0 where none survives."""
        return self.limits.get((kind, direction), self.limits.get(("*", direction), MAX_EXPONENT))


RULES: dict[str, Rule] = {
    "f32": Rule("nothing is lost"),
    "bf16": Rule("nothing is lost"),
    "f16-cache": Rule("a float16 cache of values overflows or underflows", {("vo", "up"): 8, ("vo", "down"): 8}),
    "f16": Rule("float16 weights and activations overflow or underflow", {("*", "up"): 4, ("*", "down"): 0}),
    "q8_0": Rule("a block of 32 has one scale, a float16", {("*", "up"): 4, ("*", "down"): 0}, block=32, levels=127),
    "q4_k": Rule(
        "blocks of 32 and 256 have one scale, a float16",
        {("*", "up"): 4, ("*", "down"): 0},
        block=32,
        levels=127,
    ),
    "int8": Rule("a row of int8 weights has one scale", {("*", "up"): 4, ("*", "down"): 0}, channels=1),
    "int8-dynamic": Rule("a token's int8 activations have one scale", {("*", "up"): 0, ("*", "down"): 0}),
}
"""Runtime budget, as users type it -> its rule. f32 and bf16: weights, activations and cache in that type (llama.cpp: a
cache in float32, flash attention off; transformers). f16-cache: llama.cpp's default settings. f16, q8_0, q4_k: GGUF
weights. int8: torchao, weights only; int8-dynamic: activations too."""


def check_runtimes(names: Iterable[str]) -> None:
    """Raise PlanError for a runtime without a rule."""
    for name in names:
        if name not in RULES:
            raise PlanError(f"`runtimes` must be drawn from {', '.join(RULES)}; got {name!r}.")


def limit(names: Iterable[str], kind: str, direction: str) -> int:
    """Largest exponent that every one of some runtimes survives in a kind of pair.

    Example:
        >>> limit(["f16-cache"], "vo", "up"), limit(["f16-cache", "bf16"], "norm", "up") == MAX_EXPONENT
        (8, True)
    """
    return min((RULES[name].limit(kind, direction) for name in names), default=MAX_EXPONENT)


def block_of(names: Iterable[str]) -> int:
    """How many aligned channels must be scaled together."""
    return max((RULES[name].block for name in names), default=1)


def smallest_weight(names: Iterable[str]) -> float:
    """What the largest weight of a block must be at least, once scaled; 0 where blocks have no scale."""
    return FLOAT16_SMALLEST * max((RULES[name].levels for name in names), default=0)


def most_channels(names: Iterable[str]) -> int:
    """How many channels of a pair may be scaled."""
    return min((RULES[name].channels for name in names), default=sys.maxsize)


def broken(kinds: Iterable[str], exponent: int, direction: str, block: int, channels: int = 1) -> dict[str, str]:
    """Runtimes that a lock breaks: name -> in which pairs, and why.

    Args:
        kinds: of the pairs that are scaled.
        exponent: log2 of the multiplier.
        direction: up or down.
        block: channels scaled together.
        channels: scaled in each pair.
    """
    found = {}
    for name, rule in RULES.items():
        whole = block >= rule.block and channels <= rule.channels
        lost = [kind for kind in kinds if exponent > rule.limit(kind, direction) or not whole]
        if lost:
            found[name] = f"{', '.join(lost)}: {rule.why}"
    return found


def claims_of(lost: Mapping[str, str], planned_for: Sequence[str] = ()) -> dict[str, Any]:
    """What a manifest says of runtimes: those planned for, those a lock survives, and those it breaks (`broken`)."""
    survives = [name for name in RULES if name not in lost]
    return {"planned_for": list(planned_for), "survives": survives, "breaks": dict(lost)}


def survival(claims: Mapping[str, Any]) -> str:
    """Where a lock runs as the original, and where not, in sentences.

    Args:
        claims: ``survives``, names; ``breaks``, name -> in which pairs and why.

    Example:
        >>> survival({"survives": ["f32"], "breaks": {"f16": "vo, norm: float16 overflows"}})
        'By rule it runs as the original in f32. Damaged in: f16 (vo, norm).'
    """
    said = f"By rule it runs as the original in {', '.join(claims['survives'])}."
    lost = ", ".join(f"{name} ({why.partition(':')[0]})" for name, why in claims["breaks"].items())
    return f"{said} Damaged in: {lost}." if lost else said


def reasons(names: Sequence[str], kind: str, direction: str, exponent: int) -> str:
    """Why a kind of pair is left out under a runtime budget."""
    first = next(name for name in names if RULES[name].limit(kind, direction) < exponent)
    most = RULES[first].limit(kind, direction)
    allowed = f"at most 2^{most} {direction}" if most else f"none {direction}"
    return f"runtime {first} survives {allowed}: {RULES[first].why}"
