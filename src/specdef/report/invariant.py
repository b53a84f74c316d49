"""Attackers that a change of variables, and so a lock, should not stop: what they came to."""

from __future__ import annotations

from specdef.certify.certificate import Certificate
from specdef.certify.certified_cell import CertifiedCell
from specdef.core.text import counted
from specdef.report import phrases
from specdef.report.form import number, plain
from specdef.training.optimizers import OPTIMIZERS
from specdef.training.outcome import Outcome

INVARIANT = (
    "A lock is a change of variables. The steps of these optimizers are unaffected by one of the kind that is named, "
    "but for damping and for averages over time: in theory they meet the undefended model. Where one fails, its "
    "approximation fails at the rates that were tried."
)


def invariant_attackers(certificate: Certificate) -> list[str]:
    """What every invariant optimizer came to against the model under test, best first within each.

    Args:
        certificate: what `read_certificate` gave.

    Returns:
        A sentence an optimizer, in the order of `OPTIMIZERS`; none where none was tried.
    """
    rows = [row for row in certificate.cells if row.attacks_task and not row.undefended]
    found = {name: [row for row in rows if row.attack.recipe.optimizer == name] for name in OPTIMIZERS}
    return [_sentence(name, runs) for name, runs in found.items() if runs and OPTIMIZERS[name].invariant]


def _sentence(name: str, rows: list[CertifiedCell]) -> str:
    broken = [row for row in rows if row.outcome is Outcome.BROKEN]
    scored = [(row.best.score, row.attack) for row in rows if row.best is not None]
    who = f"{name} (unaffected by {OPTIMIZERS[name].invariant}), {counted(len(rows), 'run')}: "
    if broken:
        first = min(broken, key=lambda row: row.step or 0)
        return plain(f"{who}reached the target, first {phrases.attack(first.attack)} at step {first.step}")
    if not scored:
        return plain(f"{who}no score within the utility budget")
    score, attack = max(scored, key=lambda one: one[0])
    return plain(f"{who}did not reach the target; best {number(score)} at {phrases.attack(attack)}")
