"""The verdicts of a certificate with how sure they are, and what breaking cost: the first things a page says."""

from __future__ import annotations

from specdef.certify.certificate import Certificate
from specdef.certify.findings import UNLOCKED
from specdef.certify.verdict import ThreatVerdict
from specdef.certify.verdict_kinds import Held, Slowed, Verdict, holds, is_outright
from specdef.report import phrases
from specdef.report.form import number, seconds
from specdef.report.html import grid, linked, pairs, row, text
from specdef.report.links import Link
from specdef.report.sentences import headline, steps_text, verdict_story

COST_COLUMNS = ("threat model", "steps to the target", "times the undefended", "training time", "weights rewritten in")


def look(verdict: Verdict) -> str:
    """The style sheet's class of a verdict."""
    if is_outright(verdict):
        return "open"
    return "slow" if isinstance(verdict, Slowed) else "held" if holds(verdict) else "none"


def first_words(certificate: Certificate) -> str:
    """The headline in the colour of the worst verdict, and a badge for each that leads to its card."""
    verdicts = certificate.verdicts
    classes = [look(verdict) for verdict in verdicts.values()]
    worst = next((name for name in ("open", "slow", "held") if name in classes), "none")
    badges = "".join(
        f'<li class="badge {look(verdict)}">{text(name)}: {text(phrases.verdict(verdict))}</li>'
        for name, verdict in verdicts.items()
    )
    return f'<p class="headline {worst}">{text(headline(certificate))}</p>\n<ul class="badges">{badges}</ul>'


def verdict_cards(certificate: Certificate, link: Link) -> str:
    """A card for each threat model: the verdict, its score and interval, the decision, and what was found."""
    cards = "\n".join(_card(certificate, name, link) for name in certificate.threat_models)
    return f'<div class="cards">\n{cards}\n</div>\n<p class="legend">{text(phrases.UNCERTAINTY)}</p>'


def _card(certificate: Certificate, name: str, link: Link) -> str:
    found = certificate.threat_models[name]
    said = f'<span class="badge {look(found.verdict)}">{text(phrases.verdict(found.verdict))}</span>'
    run = "" if found.cell is None else linked(link(found.cell), phrases.THE_RUN)
    return (
        f'<article class="card">\n<h3>{text(phrases.titled(name))} {said}</h3>\n'
        f"{pairs(phrases.uncertainty(found, certificate.task.target))}\n"
        f"<p>{text(verdict_story(certificate, name))} {run}</p>\n</article>"
    )


def cost_table(certificate: Certificate, link: Link) -> str:
    """What breaking cost under each threat model, beside what the undefended model costs."""
    body = [_cost(certificate, phrases.titled(UNLOCKED), certificate.unlocked, link)]
    body += [_cost(certificate, name, found, link) for name, found in certificate.threat_models.items()]
    return grid(COST_COLUMNS, body, phrases.COST, look="cost")


def _cost(certificate: Certificate, name: str, found: ThreatVerdict, link: Link) -> str:
    unlocked, cell = certificate.unlocked, None if found.cell is None else certificate.by_key[found.cell]
    rewriting = None if cell is None or cell.cost is None else cell.cost.seconds
    if found.steps is None:
        steps = f"not reached in {certificate.ordinary.steps}" if isinstance(found.verdict, Held) else "—"
    else:
        steps = steps_text(found)
    first = text(steps) if found.cell is None else linked(link(found.cell), steps)
    values = (
        _times(found.steps, unlocked.steps),
        seconds(found.seconds),
        seconds(rewriting),
    )
    return row(name, [f"<td>{first}</td>", *(f"<td>{text(value)}</td>" for value in values)])


def _times(value: float | None, unlocked: float | None) -> str:
    return "—" if value is None or not unlocked else f"x{number(value / unlocked)}"
