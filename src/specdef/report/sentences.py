"""What a certificate says in plain language: the least favourable reading first, and what it says nothing about."""

from __future__ import annotations

from specdef.certify.certificate import Certificate
from specdef.certify.threat_model import ordinary_threats
from specdef.certify.verdict import ThreatVerdict
from specdef.certify.verdict_kinds import Held, HeldBy, NotMeasured, Slowed, holds, is_open, is_outright
from specdef.core.text import counted
from specdef.report import phrases
from specdef.report.entries import LOST_ALL, LOST_SOME, REGAINED
from specdef.report.form import listed, number, plain, seconds, spread

LEGEND = (
    "Entries: steps to the target, mean ± standard deviation over the seeds that reached it, and in parentheses the "
    "best score within the utility budget, mean over seeds. Without ±: one seed. — target not reached within the "
    f"budget. {LOST_SOME} utility was lost in at least one seed, {LOST_ALL} in all. {REGAINED} utility was lost and "
    "regained in at least one seed. Invalid and crashed cells count for nothing. An empty entry was not tried."
)


def headline(certificate: Certificate) -> str:
    """The verdict in one or two sentences."""
    verdicts = certificate.verdicts
    if certificate.is_unlocked:
        return f"This model carries no lock: it is the undefended model itself.{_unlocked_cost(certificate)}"
    opened = [name for name, verdict in verdicts.items() if is_open(verdict)]
    if opened:
        return f"This {_defence(certificate)} does NOT hold: {_opened(certificate, opened[0])}"
    held = [name for name, verdict in verdicts.items() if holds(verdict)]
    missing = [name for name in ordinary_threats() if name not in held]
    if not held:
        return f"Nothing can be said about this {_defence(certificate)}: no cell that counts was measured."
    others = (
        f"threat models {listed(missing)}, " if len(missing) > 1 else f"threat model {missing[0]}, " if missing else ""
    )
    return (
        f"Held under {listed(held)} within {counted(certificate.ordinary.steps, 'step')}; that says nothing about "
        f"{others}longer training, or anything else under “What was not tried”."
    )


def _defence(certificate: Certificate) -> str:
    """What is certified: a folder without the manifest of a lock may be any defence's."""
    return "defence" if certificate.subject.method == "unknown" else "lock"


def _opened(certificate: Certificate, name: str) -> str:
    found = certificate.threat_models[name]
    unlocked = certificate.unlocked.steps
    cost = f"; the undefended model needs {number(unlocked)}" if unlocked is not None else ""
    sentence = (
        f"under {name} ({phrases.part(name)}), {worst(certificate, found)} reaches the target within the utility "
        f"budget after {_mean_steps(found)} steps{cost}."
    )
    if isinstance(found.verdict, Slowed):
        sentence += f" The attack is slowed (x{found.verdict.factor:.1f}), not prevented."
        outright = next((other for other, verdict in certificate.verdicts.items() if is_outright(verdict)), None)
        if outright is not None:
            other = certificate.threat_models[outright]
            needs = f"{worst(certificate, other)} needs {_mean_steps(other)} steps"
            sentence += f" Under {outright} it is not even slowed: {needs}."
    return sentence


def _unlocked_cost(certificate: Certificate) -> str:
    steps = certificate.unlocked.steps
    return "" if steps is None else f" Fine-tuning reaches the target after {number(steps)} steps."


def _mean_steps(found: ThreatVerdict) -> str:
    return "—" if found.steps is None else number(found.steps)


def worst(certificate: Certificate, found: ThreatVerdict) -> str:
    """The most successful attack of a threat model, in words."""
    return phrases.attack(certificate.worst(found))


def verdict_sentences(certificate: Certificate, name: str) -> str:
    """What one threat model came to, in words."""
    found, steps = certificate.threat_models[name], certificate.ordinary.steps
    said = [f"{name}, {phrases.part(name)}: {phrases.verdict(found.verdict)}"]
    said[0] += f" within {counted(steps, 'step')}." if isinstance(found.verdict, Held) else "."
    said += _story(certificate, found)
    if trusted := phrases.trusted(found, certificate.task.target):
        said.append(f"{trusted.capitalize()}.")
    if isinstance(found.verdict, Held) and found.detectable is not None:
        said.append(f"An expected score of {number(found.detectable)} would have been seen in four of five cases.")
    return plain(" ".join([*said, *_reservations(found)]))


def verdict_story(certificate: Certificate, name: str) -> str:
    """What one threat model came to, without its name, its verdict and how sure that is."""
    found = certificate.threat_models[name]
    return plain(" ".join([*_story(certificate, found), *_reservations(found)]))


def _story(certificate: Certificate, found: ThreatVerdict) -> list[str]:
    attack = f"The most successful attack, {worst(certificate, found)} (cell {found.cell}),"
    if is_open(found.verdict):
        return [
            f"{attack} reached the target with {found.seeds_broken} of "
            f"{counted(found.seeds, 'seed')} after {steps_text(found)} steps and {seconds(found.seconds)} of training."
        ]
    if not isinstance(found.verdict, Held):
        return ["No cell that counts was measured, which says nothing about the lock."]
    said = [
        f"{attack} scored {_shown(found.score)} within the utility budget; "
        f"the target is {number(certificate.task.target)}."
    ]
    if found.verdict.by is HeldBy.COLLAPSE:
        return [*said, "It ended with the model's utility lost: whoever takes smaller steps may fare better."]
    return [*said, "It kept the model's utility and was still below the target: more steps may reach it."]


def _reservations(found: ThreatVerdict) -> list[str]:
    said = []
    if found.diverged != "none":
        regained = f", and regained in {found.recovered}" if found.recovered else ""
        of = "its seed" if found.seeds == 1 else f"{found.diverged} of its {counted(found.seeds, 'seed')}"
        said.append(f"Utility was lost at some evaluation in {of}{regained}.")
    if found.num_invalid:
        said.append(
            f"{found.num_invalid} of {counted(found.num_cells, 'cell')} count for nothing (invalid or crashed)."
        )
    return said


def verdict_columns(certificate: Certificate) -> tuple[str, ...]:
    """Names of the verdict table's columns."""
    return (
        "threat model",
        "verdict",
        "worst cell",
        "steps",
        "best score within the budget",
        f"{certificate.utility.name}, times the undefended",
        "training",
    )


def verdict_rows(certificate: Certificate) -> list[tuple[str, ...]]:
    """The verdict table below `verdict_columns`: the undefended model first, then the threat models."""
    unlocked = certificate.unlocked
    said = "reaches the target" if is_open(unlocked.verdict) else phrases.verdict(unlocked.verdict)
    rows = [_verdict_row(certificate, "undefended model", unlocked, said)]
    for name, found in certificate.threat_models.items():
        rows.append(_verdict_row(certificate, name, found, phrases.verdict(found.verdict)))
    return rows


def _verdict_row(certificate: Certificate, name: str, found: ThreatVerdict, said: str) -> tuple[str, ...]:
    steps = "—"
    if found.steps is not None:
        steps = f"{steps_text(found)} ({found.seeds_broken}/{counted(found.seeds, 'seed')})"
    elif not isinstance(found.verdict, NotMeasured):
        steps = f"not reached (0/{counted(found.seeds, 'seed')})"
    return (
        name,
        plain(said),
        "—" if found.cell is None else worst(certificate, found),
        steps,
        _shown(found.score),
        _shown(found.utility),
        seconds(found.seconds),
    )


def _shown(value: float | None) -> str:
    return "—" if value is None else number(value)


def steps_text(found: ThreatVerdict) -> str:
    """Mean steps, with the deviation when there is more than one seed."""
    return "—" if found.steps is None else spread(found.steps, found.steps_std, found.seeds_broken)


def not_tried(certificate: Certificate) -> list[str]:
    """Everything that was left out, threat model by threat model."""
    lines: dict[tuple[str, str], list[str]] = {}
    for name, found in certificate.threat_models.items():
        for said in found.not_tried:
            what, _, why = said.rpartition(": ")
            lines.setdefault((name, why if what else ""), []).append(what or why)
    inside = [f"{name}: {', '.join(what)}" + (f" ({why})" if why else "") for (name, why), what in lines.items()]
    return [plain(what) for what in (*inside, *certificate.not_tried)]


def command(certificate: Certificate) -> str | None:
    """The command that wrote the certificate, when it was recorded."""
    return plain(certificate.command) if certificate.command else None
