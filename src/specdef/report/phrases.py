"""The words of outcomes, verdicts, attacks and utilities: here and nowhere else. Nothing reads them back."""

from __future__ import annotations

from specdef.attacks.base import Attack
from specdef.certify.certificate import UtilityFacts
from specdef.certify.certified_cell import CertifiedCell, ControlFacts
from specdef.certify.findings import CONTROLS, TASK_CONTROLS, UNCOUNTED, UNLOCKED
from specdef.certify.statistics import Decision
from specdef.certify.threat_model import THREATS
from specdef.certify.verdict import ThreatVerdict
from specdef.certify.verdict_kinds import Broken, Held, HeldBy, Slowed, Undone, Verdict, is_open
from specdef.core.text import counted, rate
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
GROUPS = {
    UNLOCKED: "the undefended model",
    CONTROLS: "controls: the undefended model under a threat model's attacks",
    TASK_CONTROLS: "task controls: the undefended model trained on a task without its answers",
    UNCOUNTED: "not counted: attacks that the undefended model withstands as well",
}
"""Cells that were run for no threat model."""
REACHED, NOT_REACHED = "target reached", "target not reached"
UNKNOWN = "not recorded"
PICTURE = (
    "Each mark is one run: an attack at a learning rate, with one seed. Further left, smaller steps. A row shows every "
    "run that its verdict is read from. Height within a row means nothing: runs at one rate stand above each other. "
    "Choose a mark to see the run."
)
PICTURE_TITLE = "How every run ended, by learning rate and threat model"
THE_RUN = "See this run."
THE_FILE = "Its result file."
COST = (
    "The most successful attack of each threat model: steps, mean over the seeds that reached the target, and seconds "
    "of one of them. Seconds hang on how busy the machine was; steps do not. For a lock that held, what was spent."
)
RINGED = "the run a verdict names"
AXIS = "learning rate (each line is ten times the one to its left)"
NO_CELLS = "no runs"


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
    seeds = counted(found.interval.seeds, "seed")
    text = f"score {number(found.score)}, {found.interval.level:.0%} interval {ends}, {seeds}".replace("%", " %")
    said = {
        Decision.ABOVE: f": its mean lies above the target {number(target)}",
        Decision.BELOW: f": its mean lies below the target {number(target)}",
        Decision.OPEN: f": whether its mean lies above the target {number(target)} is not decided",
    }
    return text + ("" if found.decision is None else said[found.decision])


def uncertainty(found: ThreatVerdict, target: float) -> list[tuple[str, str]]:
    """How sure a verdict is, as names and values: never silent about what was not recorded."""
    said = {
        Decision.ABOVE: "its mean lies above",
        Decision.BELOW: "its mean lies below",
        Decision.OPEN: "above or below: not decided",
    }
    score = ("best score", "—" if found.score is None else number(found.score))
    seeds = ("seeds", f"{found.seeds_broken} of {found.seeds} reached the target")
    if found.interval is None:
        return [score, ("target", number(target)), seeds, ("interval and decision", UNKNOWN)]
    return [
        score,
        (
            f"{100 * found.interval.level:.0f} % interval",
            f"{number(found.interval.low)} to {number(found.interval.high)}",
        ),
        (f"against the target {number(target)}", UNKNOWN if found.decision is None else said[found.decision]),
        ("would be seen from", UNKNOWN if found.detectable is None else f"a mean of {number(found.detectable)}"),
        seeds,
    ]


UNCERTAINTY = (
    "Best score: within the utility budget, mean over the seeds of the most successful attack. Interval: where its "
    "expected score lies, over questions and seeds. Would be seen from: the expected score that would be called above "
    "the target in four of five cases. Not recorded: the results do not hold the score of every question; the score "
    "alone does not tell how far chance reaches."
)


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
    if name in GROUPS:
        return GROUPS[name]
    return THREATS.get(name).title if name in THREATS else name


def titled(name: str) -> str:
    """A part of a certificate as a heading has it."""
    return part(name).capitalize() if name in GROUPS else f"{name}: {part(name)}"


def stage(name: str) -> str:
    """What is being worked on: a part of a certificate, or whatever else a study calls it."""
    return titled(name) if name in GROUPS or name in THREATS else name


def row_title(name: str, found: ThreatVerdict | None = None) -> str:
    """A row of a picture: what it shows and what it came to; without a verdict, that it was not tried."""
    if found is None:
        return f"{titled(name)} — not tried"
    if name == UNLOCKED and is_open(found.verdict):
        return f"{titled(name)} — reaches the target"
    return f"{titled(name)} — {verdict(found.verdict)}"


def in_picture(found: Kind) -> str:
    """How a cell ended, as the legend of a page's picture explains it."""
    return in_legend(found).replace("\n", " ")


def mark_title(cell: CertifiedCell, found: Kind) -> str:
    """A cell as its mark names it: the attack, how it ended, and its steps or score."""
    how = kind(found)
    if cell.undefended and cell.outcome.counts:
        how = NOT_REACHED if cell.step is None else REACHED
    if cell.step is not None:
        how += f" after {counted(cell.step, 'step')}"
    elif cell.best is not None and cell.outcome.counts:
        how += f", best score {number(cell.best.score)}"
    return f"{attack(cell.attack)}, seed {cell.attack.recipe.seed}: {how}"


def axis(low: int, high: int) -> str:
    """What an axis of learning rates spans, from and to powers of ten."""
    return f"Learning rate, logarithmic, from {rate(10.0**low)} to {rate(10.0**high)}"


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
