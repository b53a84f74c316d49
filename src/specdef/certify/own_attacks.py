"""A user's attacks that join a certificate: a YAML file in the form of a study's ``attacks``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from specdef.attacks.base import Attack, Intervention, parse_intervention
from specdef.certify.study_faults import StudyError, at, refuse_twins, sentence
from specdef.certify.study_file import AttackEntry, changes
from specdef.core.schema import SchemaError, convert
from specdef.core.yaml_data import YamlError, parse_yaml
from specdef.training.recipe import Recipe


@dataclass(frozen=True)
class OwnAttack:
    """One attack, as a change of the ordinary one.

    Attributes:
        label: for people.
        changes: fields of the recipe.
        interventions: what is done besides.
    """

    label: str
    changes: dict[str, Any] = field(hash=False)
    interventions: tuple[Intervention, ...] = ()


def read_attacks(path: Path | str, recipe: Recipe) -> tuple[OwnAttack, ...]:
    """The attacks of a file: a list, or a mapping with the list under ``attacks``.

    Args:
        path: the file; each entry is one of a study's ``attacks``.
        recipe: what every attack starts from.

    Raises:
        StudyError: it cannot be read, or an entry does not fit; the sentence names its place, as in ``also[1].lr``.
    """
    path = Path(path)
    try:
        content = parse_yaml(path.read_bytes())
    except OSError as error:
        raise StudyError(f"`also` must be a readable file; {path} is not ({error.strerror or error}).") from error
    except YamlError as error:
        raise StudyError(f"`also` must be YAML; {path} is not ({error}).") from error
    listed = content.get("attacks") if isinstance(content, dict) and set(content) == {"attacks"} else content
    if not isinstance(listed, list) or not listed:
        raise StudyError(f"`also` must be a list of attacks, as in a study's `attacks`; {path} holds none.")
    found = tuple(_attack(number, entry, recipe) for number, entry in enumerate(listed))
    refuse_twins("also", [attack.label for attack in found])
    return found


def _attack(number: int, given: Any, recipe: Recipe) -> OwnAttack:
    place = f"also[{number}]"
    try:
        entry = convert(given, AttackEntry)
    except SchemaError as error:
        fault = sentence(str(error), given, AttackEntry).replace("`study`", f"`{place}`", 1)
        raise StudyError(fault if fault.startswith(f"`{place}") else fault.replace("`", f"`{place}.", 1)) from error
    if entry.early_stop:
        raise StudyError(f"`{place}.early_stop` must be left out: a run that stops early decides nothing.")
    changed = changes(entry)
    interventions = tuple(
        at(f"{place}.interventions[{index}]", partial(parse_intervention, text))
        for index, text in enumerate(entry.interventions)
    )
    attack = at(place, lambda: Attack(replace(recipe, **changed), interventions))
    return OwnAttack(entry.label or attack.label, changed, interventions)
