"""Which learning rates to try next: read from what the rates tried so far came to, and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

from specdef.certify.effort import Effort
from specdef.training.outcome import Outcome

STEP = 10.0
"""How far apart rates are tried while the highest stalls."""
SHARES = (0.5, 0.4, 0.6)
"""Where in a gap a rate is tried, on a logarithmic scale; the later ones where a run at the first does not count."""


@dataclass(frozen=True)
class Point:
    """What one learning rate came to: its best score is that within the utility budget."""

    lr: float
    outcome: Outcome
    score: float


@dataclass(frozen=True)
class Reach:
    """The lowest and the highest rate a search may go to, and the score from which a rate is near the target."""

    lowest: float
    highest: float
    near: float


def rounded(lr: float) -> float:
    """Three significant digits, so that the same rate reached by another route is the same cell."""
    return float(f"{lr:.3g}")


def further_rates(points: Sequence[Point], effort: Effort, reach: Reach) -> list[float]:
    """The next rates of a search; none when it is over.

    In this order, each only when the one before asks for nothing:

    1. The ends. While the highest rate stalls, higher ones; where the lowest collapses, the lowest in reach.
    2. The edges. A window that breaks a lock lies between a rate that stalls and one that collapses, so every such
       gap is halved until it is narrower than `effort.factor`. A low score on either side is no reason to stop: what
       is flat outside a narrow window looks the same without one. A high score is one to look closer.
    3. The best score, if it is near the target: both gaps beside it; where no lower rate was tried, one.
    4. Gaps wider than `effort.spacing`.

    Args:
        points: every rate tried, those whose runs do not count too: they are not tried again.
        effort: how close is close enough.
        reach: the range, and what is near the target.
    """
    valid = sorted((point for point in points if point.outcome.counts), key=lambda point: point.lr)
    if not valid or any(point.outcome is Outcome.BROKEN for point in valid):
        return []
    if len(points) == 1 and not effort.every_attack and valid[0].score < reach.near:
        return []
    taken = {point.lr for point in points}
    return (
        _ends(valid, reach, taken)
        or _halved([pair for pair in pairwise(valid) if _is_edge(pair, effort, reach)], taken)
        or _around_best(valid, effort, reach, taken)
        or _halved([pair for pair in pairwise(valid) if _apart(pair) > effort.spacing], taken)
    )


Pair = tuple[Point, Point]


def _ends(valid: Sequence[Point], reach: Reach, taken: Set[float]) -> list[float]:
    found = []
    if valid[-1].outcome is Outcome.STALL and valid[-1].lr < reach.highest:
        found.append(rounded(min(valid[-1].lr * STEP, reach.highest)))
    if valid[0].outcome is Outcome.COLLAPSE and valid[0].lr > reach.lowest:
        found.append(rounded(reach.lowest))
    return [lr for lr in found if lr not in taken]


def _is_edge(pair: Pair, effort: Effort, reach: Reach) -> bool:
    """Whether a window may hide between neighbours that ended in different ways."""
    close = effort.near if max(point.score for point in pair) >= reach.near else effort.factor
    return pair[0].outcome is not pair[1].outcome and _apart(pair) > close


def _around_best(valid: Sequence[Point], effort: Effort, reach: Reach, taken: Set[float]) -> list[float]:
    best = max(valid, key=lambda point: (point.score, point.lr))
    if best.score < reach.near:
        return []
    lower = rounded(max(best.lr / STEP, reach.lowest))
    found = [lower] if best is valid[0] and lower < best.lr and lower not in taken else []
    return found + _halved([pair for pair in pairwise(valid) if best in pair and _apart(pair) > effort.near], taken)


def _apart(pair: Pair) -> float:
    return pair[1].lr / pair[0].lr


def _halved(pairs: Sequence[Pair], taken: Set[float]) -> list[float]:
    """A rate inside each gap; a gap in which every one was tried and does not count is left."""
    found = []
    for low, high in pairs:
        inside = (rounded(low.lr * (high.lr / low.lr) ** share) for share in SHARES)
        new = next((lr for lr in inside if lr not in taken), None)
        if new is not None:
            found.append(new)
    return found
