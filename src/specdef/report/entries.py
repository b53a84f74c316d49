"""What a table entry or a heat map cell says: the seeds of one attack at one learning rate, taken together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from specdef.attacks.run import Attack
from specdef.certify.cell import recipe_from_json
from specdef.certify.certificate import CONTAINS
from specdef.certify.findings import SLOWED
from specdef.training.outcome import Outcome

UNLOCKED = "unlocked"
LOST_SOME, LOST_ALL, REGAINED = "†", "‡", "§"
Row = Mapping[str, Any]
"""One element of ``certificate["cells"]``."""


class Kind(StrEnum):
    """How a cell ended, as tables and pictures tell it apart: outcomes, with `Outcome.BROKEN` split in three."""

    BROKEN = "broken"
    REGAINED = "broken after utility was lost and regained"
    SLOWED = "slowed"
    COLLAPSE = "held by collapse"
    STALL = "held by stall"
    INVALID = "invalid"
    CRASHED = "crashed"


@dataclass(frozen=True)
class Entry:
    """The seeds of one attack at one learning rate.

    Attributes:
        attack: the attack in words, without learning rate and seed.
        lr: learning rate.
        rows: one row of the certificate per seed.
        slowed_from: steps from which a broken lock counts as slowing; None leaves that out.
    """

    attack: str
    lr: float
    rows: tuple[Row, ...]
    slowed_from: float | None = None

    @property
    def valid(self) -> list[Row]:
        """The seeds that count."""
        return [row for row in self.rows if row["outcome"] not in (Outcome.INVALID.value, Outcome.CRASHED.value)]

    @property
    def broken(self) -> list[Row]:
        """The seeds that reached the target within the utility budget."""
        return [row for row in self.rows if row["outcome"] == Outcome.BROKEN.value]

    @property
    def steps(self) -> float | None:
        """Mean steps to the target over the seeds that reached it."""
        return mean([row["step"] for row in self.broken])

    @property
    def steps_std(self) -> float | None:
        """Population standard deviation of those steps."""
        middle = self.steps
        if middle is None:
            return None
        return math.sqrt(sum((row["step"] - middle) ** 2 for row in self.broken) / len(self.broken))

    @property
    def score(self) -> float | None:
        """Best score within the utility budget, mean over the seeds that count."""
        return mean([row["best_score"] for row in self.valid if row["best_score"] is not None])

    @property
    def kind(self) -> Kind:
        """How the attack ended: that of the most successful seed, so that one broken seed makes the entry broken."""
        if self.broken:
            steps = self.steps
            if all(row["diverged_at"] is not None for row in self.broken):
                return Kind.REGAINED
            slowed = steps is not None and self.slowed_from and steps >= self.slowed_from
            return Kind.SLOWED if slowed else Kind.BROKEN
        if self.valid:
            return Kind(max(self.valid, key=lambda row: row["best_score"] or 0.0)["outcome"])
        invalid = any(row["outcome"] == Outcome.INVALID.value for row in self.rows)
        return Kind.INVALID if invalid else Kind.CRASHED

    @property
    def marks(self) -> str:
        """Footnote marks: utility lost in some or in all seeds, and regained in some."""
        lost = sum(row["diverged_at"] is not None for row in self.valid)
        mark = "" if not lost else LOST_ALL if lost == len(self.rows) else LOST_SOME
        return mark + (REGAINED if any(row["recovered"] for row in self.valid) else "")

    @property
    def main(self) -> str:
        """The papers' form: ``20 ± 3 (0.97)†``, or ``— (0.31)‡`` for an attack that did not reach the target."""
        if not self.valid:
            return str(self.kind.value)
        head = "—" if self.steps is None else spread(self.steps, self.steps_std, len(self.broken))
        score = "" if self.score is None else f" ({number(self.score)})"
        return f"{head}{score}{self.marks}"

    @property
    def notes(self) -> list[str]:
        """What the papers' form leaves out: seeds that did not reach the target, and seeds that do not count."""
        found = [f"{len(self.broken)}/{len(self.rows)} seeds"] if 0 < len(self.broken) < len(self.rows) else []
        if len(self.rows) > 1:
            for kind in (Kind.INVALID, Kind.CRASHED):
                count = sum(row["outcome"] == kind for row in self.rows)
                found += [f"{count} {kind.value}"] if count else []
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
        attacks: attacks in the order they were run.
        entries: what each attack came to at each learning rate tried.
    """

    name: str
    rates: tuple[float, ...]
    attacks: tuple[str, ...]
    entries: dict[tuple[str, float], Entry]


def paper_tables(certificate: Mapping[str, Any]) -> list[PaperTable]:
    """One table for the undefended model and one per threat model, with the cells its verdict is read from."""
    return [_paper_table(certificate, name) for name in (UNLOCKED, *certificate["threat_models"])]


def _paper_table(certificate: Mapping[str, Any], name: str) -> PaperTable:
    entries = entries_of(rows_of(certificate, name), slowed_from=slowed_from(certificate, name))
    return PaperTable(
        name,
        tuple(sorted({entry.lr for entry in entries})),
        tuple(dict.fromkeys(entry.attack for entry in entries)),
        {(entry.attack, entry.lr): entry for entry in entries},
    )


def rows_of(certificate: Mapping[str, Any], name: str) -> list[Row]:
    """The rows a threat model's verdict is read from, each cell once."""
    parts = CONTAINS.get(name, (name,))
    return list({row["cell"]: row for row in certificate["cells"] if row["threat_model"] in parts}.values())


def slowed_from(certificate: Mapping[str, Any], name: str) -> float | None:
    """Steps from which a broken lock counts as slowing the attack; None for the undefended model itself."""
    steps = None if name == UNLOCKED else certificate[UNLOCKED]["steps"]
    return None if steps is None else SLOWED * float(steps) + certificate["recipe"].get("eval_every", 0)


def entries_of(rows: Iterable[Row], *, slowed_from: float | None) -> list[Entry]:
    """Rows grouped by attack and learning rate, in the order they were run."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((attack_name(row["attack"], row["lr"]), float(row["lr"])), []).append(row)
    return [Entry(attack, lr, tuple(found), slowed_from) for (attack, lr), found in groups.items()]


def attack_name(label: str, lr: float) -> str:
    """An attack's label without its learning rate."""
    return label.replace(f", lr {lr:.3g}", "", 1)


def ordinary_attack(certificate: Mapping[str, Any]) -> str:
    """Name of full fine-tuning with AdamW and the certificate's own recipe."""
    recipe = recipe_from_json({**certificate["recipe"], "optimizer": "adamw"})
    return attack_name(Attack(recipe).label, recipe.lr)


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; None without values."""
    return sum(values) / len(values) if values else None


def spread(middle: float, deviation: float | None, count: int) -> str:
    """A mean, with the deviation when there is more than one value.

    >>> spread(20.0, 0.0, 1), spread(30.0, 8.165, 3)
    ('20', '30 ± 8.2')
    """
    return number(middle) + (f" ± {deviation or 0.0:.2g}" if count > 1 else "")


def number(value: float) -> str:
    """A step count, score or ratio with up to three significant digits, without an exponent below a million.

    >>> number(20.0), number(23.3333), number(0.9666), number(1.0), number(1234.5), number(3e9)
    ('20', '23.3', '0.967', '1', '1234', '3e+09')
    """
    if 1000 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.3g}"


def rate(lr: float) -> str:
    """A learning rate.

    >>> rate(1e-5), rate(3e-4), rate(0.1), rate(3.16e-10)
    ('1e-5', '3e-4', '0.1', '3.16e-10')
    """
    if lr >= 0.01:
        return f"{lr:.3g}"
    digits, exponent = f"{lr:.2e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def power(multiplier: float) -> str:
    """A multiplier; large powers of two as such.

    >>> power(1024.0), power(2.0**20), power(1e5)
    ('1024', '2^20', '100000')
    """
    exponent = math.frexp(multiplier)
    return f"2^{exponent[1] - 1}" if exponent[0] == 0.5 and exponent[1] > 11 else number(multiplier)
