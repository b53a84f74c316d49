"""Study files: models x defences x attacks x tasks x seeds as YAML, read whole and refused before anything runs."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from specdef.certify.study_faults import StudyError, at, refuse_twins, sentence
from specdef.core.schema import SchemaError, convert
from specdef.core.yaml_data import YamlError, parse_yaml
from specdef.training.recipe import Recipe

Name = Annotated[str, Meta(min_length=1, max_length=200)]
PLAIN = "none"
"""The defence that leaves the model as it is."""


def _listed(kind: type) -> str:
    """The list of attributes in a docstring."""
    return "Attributes:" + (kind.__doc__ or "").partition("Attributes:")[2].rstrip()


STUDY_LR = 1e-5
"""Learning rate of a study that names none. `Recipe` has another; what a study file means does not change with it."""
_RECIPE = [(name, kind | UnsetType, UNSET) for name, kind in get_type_hints(Recipe).items() if name != "seed"]

if TYPE_CHECKING:
    RecipeChanges = Struct
else:
    RecipeChanges = msgspec.defstruct("RecipeChanges", _RECIPE, forbid_unknown_fields=True, frozen=True, kw_only=True)
    RecipeChanges.__doc__ = (
        f"What differs from the default recipe; `lr` is {STUDY_LR:g} where it is left out, and the seed comes from "
        f"`seeds`.\n\n    {_listed(Recipe)}"
    )


class AttackEntry(RecipeChanges, forbid_unknown_fields=True, frozen=True, kw_only=True):  # noqa: D101
    __doc__ = f"""One attack: what it changes in the study's recipe, and what is done besides.

    {_listed(Recipe)}
        label: shown in tables; the attack's own words when left out.
        interventions: such as ``merge`` or ``lora:rank=8,targets=all``.
        early_stop: stop when utility is lost; the study's when left out.
    """

    label: Name | None = None
    interventions: tuple[str, ...] = ()
    early_stop: bool | None = None


class ModelEntry(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One model.

    Attributes:
        model: a folder, a hub id, or ``smollm2-135m``.
        label: shown in tables; the model's last name when left out.
        prepare: a defence applied first. The result counts as the undefended model: what attackers of it want is to
            undo the preparation.
    """

    model: Name
    label: Name | None = None
    prepare: dict[str, Any] | None = None


class TaskEntry(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One task, with what the command line has options for.

    Attributes:
        task: such as ``biographies`` or ``mcqa:FILE``; left out where `train` is given.
        label: shown in tables; the task as written when left out.
        target: score to reach; the task's own when left out.
        scorer: what counts as success, such as ``any:REGEX`` or, with `train`, ``exact``.
        seed: decides the task's draws.
        train: your own file to train on.
        eval: your own file that is asked; given with `train`.
        fields: what your files call what is read, as in ``prompt=q,completion=a``.
    """

    task: Name | None = None
    label: Name | None = None
    target: float | None = None
    scorer: str | None = None
    seed: int = 0
    train: Name | None = None
    eval: Name | None = None
    fields: Name | None = None


class StudyFile(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A study: every defence of every model, attacked in every way, at every task, with every seed.

    Attributes:
        specdef_study: version of this form.
        title: of tables and pages.
        models: what is defended.
        defences: ``none``; a lock as ``preset: exact`` with the options of `specdef.lock`; or another defence as
            ``method: unlearned`` with its options. Each may have a ``label`` and a ``seed``.
        tasks: what attackers want; the model kind's own when left out.
        attacks: how they go about it.
        certify: threat models to certify under, instead of attacks.
        base: the public base weights, for a threat model whose attacker holds them; of a lock, the undefended model
            when left out.
        effort: how closely, widely and long ``certify`` searches.
        seeds: of training; decides the order of samples and every other draw.
        recipe: what every attack starts from.
        early_stop: stop a run when utility is lost, as the papers do.
        utility: what is watched besides the task; that of the models' kind when left out.
        utility_factor: how much of its utility a model may lose and still count as useful.
        window: ordinary learning rates, for ``certify``.
        text: general data; what ships with the package when left out.
        rows: what stands in the rows of tables.
        threads: CPU threads of each run, part of its identity; what the machine suggests when left out.
    """

    specdef_study: Literal[1]
    title: Name
    models: Annotated[tuple[Name | ModelEntry, ...], Meta(min_length=1)]
    defences: Annotated[tuple[Name | dict[str, Any], ...], Meta(min_length=1)] = (PLAIN,)
    tasks: tuple[Name | TaskEntry, ...] = ()
    attacks: tuple[AttackEntry, ...] = ()
    certify: tuple[Name, ...] = ()
    base: Name | None = None
    effort: Literal["quick", "standard", "thorough"] = "standard"
    seeds: Annotated[tuple[Annotated[int, Meta(ge=0, lt=2**32)], ...], Meta(min_length=1)] = (0,)
    recipe: RecipeChanges = RecipeChanges()
    early_stop: bool = False
    utility: Name | None = None
    utility_factor: Annotated[float, Meta(gt=1)] = 2.0
    window: Annotated[tuple[float, ...], Meta(min_length=2)] | None = None
    text: str | None = None
    rows: Literal["defences", "attacks"] = "defences"
    threads: Annotated[int, Meta(ge=1)] | None = None


def read_study(path: Path | str) -> StudyFile:
    """Read a study file.

    Raises:
        StudyError: it cannot be read, or does not fit; the sentence names the place, as in ``attacks[2].lr``.
    """
    path = Path(path)
    try:
        return parse_study(path.read_bytes())
    except OSError as error:
        raise StudyError(f"`study` must be a readable file; {path} is not ({error.strerror or error}).") from error


def parse_study(data: bytes) -> StudyFile:
    """A study from the text of its file.

    Raises:
        StudyError: it does not fit; the sentence names the place.
    """
    try:
        content = parse_yaml(data)
    except YamlError as error:
        raise StudyError(f"`study` must be YAML; it is not ({error}).") from error
    if not isinstance(content, dict):
        raise StudyError("`study` must be a mapping of names to values, `title` and `models` among them; it is not.")
    try:
        study = convert(content, StudyFile)
    except SchemaError as error:
        raise StudyError(sentence(str(error), content, StudyFile)) from error
    _check(study)
    return study


def study_recipe(study: StudyFile) -> Recipe:
    """The recipe every attack starts from."""
    return at("recipe", lambda: Recipe(**{"lr": STUDY_LR, **changes(study.recipe)}))


def changes(entry: Struct) -> dict[str, Any]:
    """What an entry gives of a recipe's fields, by name."""
    names = [field.name for field in fields(Recipe) if field.name != "seed"]
    found = {name: getattr(entry, name) for name in names}
    return {name: value for name, value in found.items() if value is not UNSET}


def _check(study: StudyFile) -> None:
    """What types cannot say, as far as it needs no model."""
    if study.attacks and study.certify:
        raise StudyError("`certify` must be left out where attacks are given: a certificate chooses its own attacks.")
    _refuse_unused(study)
    recipe = study_recipe(study)
    for number, entry in enumerate(study.attacks):
        at(f"attacks[{number}]", partial(replace, recipe, **changes(entry)))
    for number, task in enumerate(study.tasks):
        if isinstance(task, TaskEntry) and task.task is None and task.train is None:
            place = f"tasks[{number}].task"
            raise StudyError(f"`{place}` must be given, or `train` and `eval` with your own files; it is missing.")
    refuse_twins("seeds", [str(seed) for seed in study.seeds])


def _refuse_unused(study: StudyFile) -> None:
    """Refuse what was changed and would be ignored."""
    names, why = ("effort", "window"), "given with `certify`, which alone uses it; no threat model is listed"
    if study.certify:
        names, why = ("seeds", "early_stop"), "left out with `certify`: a certificate chooses its own"
    for field in msgspec.structs.fields(StudyFile):
        if field.name in names and getattr(study, field.name) != field.default:
            raise StudyError(f"`{field.name}` must be {why}.")
