"""One attack as a user's YAML says it, in a study or beside a certificate: checked, each fault said of its place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from specdef.attacks.base import Attack, Intervention, parse_intervention
from specdef.certify.study_faults import at
from specdef.certify.study_file import AttackEntry, changes
from specdef.training.outcome import StopRule, stop_rule
from specdef.training.recipe import Recipe


@dataclass(frozen=True)
class AttackPlan:
    """One attack, as a change of the ordinary one.

    Attributes:
        label: shown in tables.
        changes: what differs from the ordinary recipe.
        interventions: what is done besides.
        stop: when a run ends before its last step.
    """

    label: str
    changes: dict[str, Any]
    interventions: tuple[Intervention, ...] = ()
    stop: StopRule = "budget"

    def bound(self) -> AttackPlan:
        """The same, its interventions bound to the content of the files they read.

        Raises:
            SpecdefError: a file cannot be used.
        """
        return replace(self, interventions=tuple(one.bound() for one in self.interventions))


def plan_attack(
    place: str, entry: AttackEntry, recipe: Recipe, *, early_stop: bool = False, utility_factor: float = 2.0
) -> AttackPlan:
    """An entry of a file as a plan.

    Args:
        place: of the entry in its file.
        entry: as it was read.
        recipe: what every attack starts from.
        early_stop: whether a run stops when utility is lost, where the entry does not say.
        utility_factor: how much of its utility a model may lose.

    Raises:
        StudyError: a fault, said of its place.
    """
    changed = changes(entry)
    interventions = tuple(
        at(f"{place}.interventions[{index}]", partial(parse_intervention, text))
        for index, text in enumerate(entry.interventions)
    )
    stops = stop_rule(early_stop if entry.early_stop is None else entry.early_stop)
    attack = at(place, lambda: Attack(replace(recipe, **changed), interventions, stops, utility_factor))
    return AttackPlan(entry.label or attack.label, changed, interventions, stops)
