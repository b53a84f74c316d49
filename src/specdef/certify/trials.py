"""Trials: what one attack changes in the ordinary recipe, and the cell that comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from specdef.attacks.base import Attack, Intervention
from specdef.certify.cell import Cell
from specdef.certify.findings import Findings
from specdef.certify.rates import rounded
from specdef.certify.study import Study

UNCLIPPED = {"max_grad_norm": None, "clip_each": False}
"""Changes that leave gradients as long as they are, whatever the ordinary recipe does."""


@dataclass(frozen=True)
class Trial:
    """One attack, as a change of the ordinary one.

    Attributes:
        changes: fields of the recipe.
        interventions: what is done besides.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    interventions: tuple[Intervention, ...] = ()

    def at(self, lr: float) -> Trial:
        """The same at another learning rate, rounded."""
        return replace(self, changes={**self.changes, "lr": rounded(lr)})

    @property
    def but_rate(self) -> Trial:
        """The same without its learning rate."""
        return replace(self, changes={name: value for name, value in self.changes.items() if name != "lr"})

    @property
    def without_lock(self) -> Trial:
        """The same, without what needs a lock to work on: the trial on the undefended model."""
        return replace(self, interventions=tuple(one for one in self.interventions if not one.needs_lock))

    def attack(self, study: Study) -> Attack:
        """The attack."""
        other = (
            {"optimizer_options": ()} if "optimizer" in self.changes else {}
        )  # they belong to the ordinary optimizer
        return Attack(
            replace(study.recipe, **{**other, **self.changes}), self.interventions, study.stop, study.utility_factor
        )


def trying(rates: Iterable[float], *interventions: Intervention, **changes: Any) -> list[Trial]:
    """One attack at some learning rates."""
    return [Trial({"lr": lr, **changes}, interventions) for lr in rates]


def original_cell(study: Study, attack: Attack) -> Cell:
    """A cell on the undefended model."""
    return study.attacked(study.original, attack)


def locked_cell(study: Study, findings: Findings, attack: Attack) -> Cell:
    """A cell on the model under test; the undefended model needs no comparison with itself, so its cells are reused."""
    alone = study.locked.digest == study.original.digest and not attack.rewrites
    return study.attacked(study.locked, attack, reference=None if alone else findings.reference)


def by_rate(trials: Sequence[Trial], study: Study) -> list[tuple[Trial, list[float]]]:
    """The attacks among some trials, each with the learning rates it is tried at."""
    found: list[tuple[Trial, list[float]]] = []
    for trial in trials:
        lr = trial.attack(study).recipe.lr
        for other, rates in found:
            if other == trial.but_rate:
                rates.append(lr)
                break
        else:
            found.append((trial.but_rate, [lr]))
    return found
