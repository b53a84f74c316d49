"""What a table entry or a heat map cell says: the seeds of one attack at one learning rate, taken together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from specdef.attacks.base import Attack
from specdef.certify.certificate import Certificate
from specdef.certify.certified_cell import CertifiedCell
from specdef.certify.findings import SLOWED, UNLOCKED
from specdef.certify.statistics import mean, std
from specdef.certify.threat_model import THREATS
from specdef.report import phrases
from specdef.report.form import number, spread
from specdef.report.kind import Kind
from specdef.training.outcome import Outcome

LOST_SOME, LOST_ALL, REGAINED = "†", "‡", "§"


@dataclass(frozen=True)
class Entry:
    """The seeds of one attack at one learning rate.

    Attributes:
        rows: one row of the certificate per seed.
        slowed_from: steps from which a broken lock counts as slowing; None leaves that out.
    """

    rows: tuple[CertifiedCell, ...]
    slowed_from: float | None = None

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self.rows[0].attack.recipe.lr

    @property
    def valid(self) -> list[CertifiedCell]:
        """The seeds that count."""
        return [row for row in self.rows if row.outcome.counts]

    @property
    def broken(self) -> list[CertifiedCell]:
        """The seeds that reached the target within the utility budget."""
        return [row for row in self.rows if row.outcome is Outcome.BROKEN]

    @property
    def steps(self) -> float | None:
        """Mean steps to the target over the seeds that reached it."""
        return mean(self._steps)

    @property
    def steps_std(self) -> float | None:
        """Population standard deviation of those steps."""
        return std(self._steps)

    @property
    def _steps(self) -> list[float]:
        return [float(row.step) for row in self.broken if row.step is not None]

    @property
    def score(self) -> float | None:
        """Best score within the utility budget, mean over the seeds that count."""
        return mean([row.best.score for row in self.valid if row.best is not None])

    @property
    def kind(self) -> Kind:
        """How the attack ended: that of the most successful seed, so that one broken seed makes the entry broken."""
        if self.broken:
            steps = self.steps
            if all(row.diverged_at is not None for row in self.broken):
                return Kind.REGAINED
            slowed = steps is not None and self.slowed_from and steps >= self.slowed_from
            return Kind.SLOWED if slowed else Kind.BROKEN
        if self.valid:
            return Kind[max(self.valid, key=lambda row: row.best.score if row.best else 0.0).outcome.name]
        invalid = any(row.outcome is Outcome.INVALID for row in self.rows)
        return Kind.INVALID if invalid else Kind.CRASHED

    @property
    def marks(self) -> str:
        """Footnote marks: utility lost in some or in all seeds, and regained in some."""
        lost = sum(row.diverged_at is not None for row in self.valid)
        mark = "" if not lost else LOST_ALL if lost == len(self.rows) else LOST_SOME
        return mark + (REGAINED if any(row.recovered for row in self.valid) else "")

    @property
    def main(self) -> str:
        """The papers' form: ``20 ± 3 (0.97)†``, or ``— (0.31)‡`` for an attack that did not reach the target."""
        if not self.valid:
            return phrases.kind(self.kind)
        head = "—" if self.steps is None else spread(self.steps, self.steps_std, len(self.broken))
        score = "" if self.score is None else f" ({number(self.score)})"
        return f"{head}{score}{self.marks}"

    @property
    def notes(self) -> list[str]:
        """What the papers' form leaves out: seeds that did not reach the target, and seeds that do not count."""
        found = [f"{len(self.broken)}/{len(self.rows)} seeds"] if 0 < len(self.broken) < len(self.rows) else []
        if len(self.rows) > 1:
            for outcome in (Outcome.INVALID, Outcome.CRASHED):
                count = sum(row.outcome is outcome for row in self.rows)
                found += [f"{count} {phrases.kind(Kind[outcome.name])}"] if count else []
        return found

    @property
    def text(self) -> str:
        """`main` and `notes` on one line."""
        return "; ".join([self.main, *self.notes])


@dataclass(frozen=True)
class PaperTable:
    """Rows are attacks, columns learning rates.

    Attributes:
        name: ``unlocked`` or a threat model.
        rates: learning rates, ascending.
        attacks: attacks in the order they were run, each as `but_rate` gives it.
        entries: what each attack came to at each learning rate tried.
    """

    name: str
    rates: tuple[float, ...]
    attacks: tuple[Attack, ...]
    entries: dict[tuple[Attack, float], Entry]


def paper_tables(certificate: Certificate) -> list[PaperTable]:
    """One table for the undefended model and one per threat model, with the cells its verdict is read from."""
    return [_paper_table(certificate, name) for name in (UNLOCKED, *certificate.threat_models)]


def _paper_table(certificate: Certificate, name: str) -> PaperTable:
    entries = entries_of(rows_of(certificate, name), slowed_from=slowed_from(certificate, name))
    return PaperTable(
        name,
        tuple(sorted({lr for _, lr in entries})),
        tuple(dict.fromkeys(attack for attack, _ in entries)),
        entries,
    )


def rows_of(certificate: Certificate, name: str) -> list[CertifiedCell]:
    """The rows a threat model's verdict is read from, each cell once."""
    parts = THREATS.get(name).parts if name in THREATS else (name,)
    return list({row.cell: row for row in certificate.cells if row.threat_model in parts}.values())


def slowed_from(certificate: Certificate, name: str) -> float | None:
    """Steps from which a broken lock counts as slowing the attack; None for the undefended model itself."""
    steps = None if name == UNLOCKED else certificate.unlocked.steps
    return None if steps is None else SLOWED * steps + certificate.ordinary.eval_every


def entries_of(rows: Iterable[CertifiedCell], *, slowed_from: float | None) -> dict[tuple[Attack, float], Entry]:
    """Rows grouped by attack and learning rate, in the order they were run."""
    groups: dict[tuple[Attack, float], list[CertifiedCell]] = {}
    for row in rows:
        groups.setdefault((but_rate(row.attack), row.attack.recipe.lr), []).append(row)
    return {place: Entry(tuple(found), slowed_from) for place, found in groups.items()}


def but_rate(attack: Attack) -> Attack:
    """An attack whose rate, seed and stopping rule say nothing: equal for attacks that differ in these alone."""
    return replace(attack, recipe=replace(attack.recipe, lr=1.0, seed=0), stop="budget")


def ordinary_attack(certificate: Certificate) -> Attack:
    """Full fine-tuning with the certificate's own recipe, as `but_rate` gives it."""
    return but_rate(Attack(certificate.ordinary, utility_factor=certificate.utility.factor))
