"""A user's attacks in a YAML file, in the form of a study's ``attacks``: to join a certificate, or one alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specdef.certify.attack_plan import AttackPlan, plan_attack
from specdef.certify.study_faults import StudyError, at, refuse_twins, sentence
from specdef.certify.study_file import AttackEntry
from specdef.core.schema import SchemaError, convert
from specdef.core.yaml_data import YamlError, parse_yaml
from specdef.training.recipe import Recipe


def read_attacks(path: Path | str, recipe: Recipe) -> tuple[AttackPlan, ...]:
    """The attacks of a file: a list, or a mapping with the list under ``attacks``.

    Args:
        path: the file; each entry is one of a study's ``attacks``.
        recipe: what every attack starts from.

    Raises:
        StudyError: it cannot be read, or an entry does not fit; the sentence names its place, as in ``also[1].lr``.
    """
    listed = _listed(_content(path, "also"))
    if not isinstance(listed, list) or not listed:
        raise StudyError(f"`also` must be a list of attacks, as in a study's `attacks`; {path} holds none.")
    found = tuple(_deciding(number, entry, recipe) for number, entry in enumerate(listed))
    refuse_twins("also", [attack.label for attack in found])
    return found


def read_attack(path: Path | str, recipe: Recipe) -> AttackPlan:
    """The one attack of a file: what `read_attacks` reads with a single entry, or that entry alone.

    Args:
        path: the file.
        recipe: what the attack starts from.

    Raises:
        StudyError: it cannot be read, holds several, or does not fit; the sentence names its place, as in
            ``recipe.lr``.
    """
    listed = _listed(_content(path, "recipe"))
    entries = listed if isinstance(listed, list) else [listed]
    if len(entries) != 1:
        raise StudyError(f"`recipe` must be one attack, as in a study's `attacks`; {path} holds {len(entries)}.")
    return plan_attack("recipe", at("recipe", lambda: _entry(entries[0]), argument="study"), recipe)


def _content(path: Path | str, argument: str) -> Any:
    try:
        return parse_yaml(Path(path).read_bytes())
    except OSError as error:
        raise StudyError(f"`{argument}` must be a readable file; {path} is not ({error.strerror or error}).") from error
    except YamlError as error:
        raise StudyError(f"`{argument}` must be YAML; {path} is not ({error}).") from error


def _listed(content: Any) -> Any:
    return content["attacks"] if isinstance(content, dict) and set(content) == {"attacks"} else content


def _deciding(number: int, given: Any, recipe: Recipe) -> AttackPlan:
    place = f"also[{number}]"
    entry = at(place, lambda: _entry(given), argument="study")
    if entry.early_stop:
        raise StudyError(f"`{place}.early_stop` must be left out: a run that stops early decides nothing.")
    return plan_attack(place, entry, recipe)


def _entry(given: Any) -> AttackEntry:
    try:
        return convert(given, AttackEntry)
    except SchemaError as error:
        raise StudyError(sentence(str(error), given, AttackEntry)) from error
