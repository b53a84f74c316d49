"""The words of outcomes, verdicts, attacks and utilities: here and nowhere else. Nothing reads them back."""

from __future__ import annotations

from specdef.attacks.base import Attack
from specdef.certify.certificate import ControlFacts, UtilityFacts
from specdef.certify.findings import UNLOCKED
from specdef.certify.statistics import Decision
from specdef.certify.threat_model import THREATS
from specdef.certify.verdict import ThreatVerdict
from specdef.certify.verdict_kinds import Broken, Held, HeldBy, Slowed, Undone, Verdict
from specdef.report.form import number, plain, shortened
from specdef.report.kind import Kind

KINDS = {
    Kind.BROKEN: "broken",
    Kind.REGAINED: "broken after utility was lost and regained",
    Kind.SLOWED: "slowed",
    Kind.COLLAPSE: "held by collapse",
    Kind.STALL: "held by stall",
    Kind.INVALID: "invalid",
    Kind.CRASHED: "crashed",
}
SHORT = {
    **{kind: kind.name.lower() for kind in Kind},
    Kind.REGAINED: "regained",
}
"""For squares of a picture."""
HELD = {HeldBy.COLLAPSE: KINDS[Kind.COLLAPSE], HeldBy.STALL: KINDS[Kind.STALL]}


def kind(found: Kind) -> str:
    """How a cell ended, in words."""
    return KINDS[found]


def in_legend(found: Kind) -> str:
    """How a cell ended, as the legend of a picture explains it."""
    words = {
        Kind.BROKEN: f"{KINDS[Kind.BROKEN]} (target reached)",
        Kind.REGAINED: KINDS[Kind.REGAINED].replace(" was lost ", " was lost\n", 1),
    }
    return words.get(found, KINDS[found])


def verdict(found: Verdict) -> str:
    """A verdict in words.

    Example:
        >>> verdict(Slowed(1.83)), verdict(Held(HeldBy.COLLAPSE))
        ('slowed x1.8', 'held by collapse')
    """
    if isinstance(found, Broken):
        return "broken"
    if isinstance(found, Slowed):
        return f"slowed x{found.factor:.1f}"
    if isinstance(found, Undone):
        return f"undone in {found.seconds:.1f} seconds with no training"
    return HELD[found.by] if isinstance(found, Held) else "not measured"


def trusted(found: ThreatVerdict, target: float) -> str:
    """How far a threat model's score can be trusted, in words; "" where the task does not tell.

    Example:
        >>> from specdef.certify.statistics import Decision, Interval
        >>> known = {"score": 0.72, "interval": Interval(0.6, 0.81, 0.95, 3), "decision": Decision.OPEN}
        >>> trusted(ThreatVerdict(Broken(), **known), 0.6)
        'score 0.72, 95 % interval 0.6 to 0.81, 3 seeds: whether its mean lies above the target 0.6 is not decided'
    """
    if found.interval is None or found.score is None:
        return ""
    ends = f"{number(found.interval.low)} to {number(found.interval.high)}"
    seeds = f"{found.interval.seeds} seed{'s' if found.interval.seeds > 1 else ''}"
    text = f"score {number(found.score)}, {found.interval.level:.0%} interval {ends}, {seeds}".replace("%", " %")
    said = {
        Decision.ABOVE: f": its mean lies above the target {number(target)}",
        Decision.BELOW: f": its mean lies below the target {number(target)}",
        Decision.OPEN: f": whether its mean lies above the target {number(target)} is not decided",
    }
    return text + ("" if found.decision is None else said[found.decision])


def control(found: ControlFacts) -> str:
    """What the form of the task alone is worth, in words."""
    if found.score is None:
        return f"{found.task}: not measured"
    ends = "" if found.interval is None else f" ({number(found.interval.low)} to {number(found.interval.high)})"
    return f"{found.task}: score {number(found.score)}{ends}"


def attack(found: Attack | None) -> str:
    """An attack with its learning rate, short enough for a sentence."""
    return "no attack" if found is None else shortened(plain(found.label))


def attack_without_rate(found: Attack) -> str:
    """An attack for a table whose columns are learning rates."""
    return shortened(plain(found.label_without_rate))


def part(name: str) -> str:
    """What a part of a certificate is about: the undefended model, or what a threat model tries."""
    if name == UNLOCKED:
        return "the undefended model"
    return THREATS.get(name).title if name in THREATS else name


def budget(utility: UtilityFacts) -> str:
    """What a useful model must keep, in words.

    Example:
        >>> budget(UtilityFacts("perplexity", "perplexity of text", False, "", 40.0, 2.0, 80.0))
        'perplexity of text at most 80, from 40 on the undefended model (budget 2)'
    """
    side = "at least" if utility.higher_is_better else "at most"
    if utility.reference is None or utility.limit is None:
        return f"{utility.unit}, budget {number(utility.factor)}"
    return (
        f"{utility.unit} {side} {number(utility.limit)}, from {number(utility.reference)} on the undefended model "
        f"(budget {number(utility.factor)})"
    )
