"""A study with every part checked and resolved as far as it needs no model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from specdef.certify.attack_plan import AttackPlan, plan_attack
from specdef.certify.certify_study import check_threats
from specdef.certify.study_faults import StudyError, at, refuse_twins
from specdef.certify.study_file import StudyFile, TaskEntry, study_recipe
from specdef.certify.study_models import DefencePlan, ModelPlan, plan_defences, plan_models
from specdef.certify.threat_model import named_threats, needing_base
from specdef.tasks.base import TaskSpec, given_task, make_task
from specdef.training.recipe import Recipe


@dataclass(frozen=True)
class TaskPlan:
    """One task of a study, and what it is called in tables."""

    label: str
    spec: TaskSpec


@dataclass(frozen=True)
class StudyPlan:
    """Everything a study says, in objects.

    Attributes:
        study: as it was read.
        models: what is defended.
        defences: how.
        tasks: what attackers want; empty is the default of each model's kind.
        attacks: how they go about it.
        recipe: what every attack starts from.
    """

    study: StudyFile
    models: tuple[ModelPlan, ...]
    defences: tuple[DefencePlan, ...]
    tasks: tuple[TaskPlan, ...]
    attacks: tuple[AttackPlan, ...]
    recipe: Recipe


def plan_study(study: StudyFile) -> StudyPlan:
    """Check every part of a study that needs no model: options, recipes, interventions, tasks and their files.

    Raises:
        StudyError: a fault, said of its place in the file.
    """
    plan = plan_without_files(study)
    for number, task in enumerate(plan.tasks):
        at(f"tasks[{number}]", partial(make_task, task.spec))
    return plan


def plan_without_files(study: StudyFile) -> StudyPlan:
    """The same, but for the files of tasks.

    Raises:
        StudyError: a fault, said of its place in the file.
    """
    recipe = study_recipe(study)
    if study.certify:
        at("certify", lambda: check_threats(study.certify), argument="threats")
    if study.base is not None and not needing_base(study.certify):
        known = ", ".join(needing_base(named_threats()))
        raise StudyError(f"`base` must be given where `certify` lists {known}, which uses it; it does not.")
    tasks = tuple(_task(number, entry) for number, entry in enumerate(study.tasks))
    refuse_twins("tasks", [task.label for task in tasks])
    attacks = tuple(
        plan_attack(
            f"attacks[{number}]", entry, recipe, early_stop=study.early_stop, utility_factor=study.utility_factor
        )
        for number, entry in enumerate(study.attacks)
    )
    refuse_twins("attacks", [attack.label for attack in attacks])
    return StudyPlan(study, plan_models(study), plan_defences(study), tasks, attacks, recipe)


def _task(number: int, entry: str | TaskEntry) -> TaskPlan:
    entry = entry if isinstance(entry, TaskEntry) else TaskEntry(task=entry)
    spec = at(
        f"tasks[{number}]",
        lambda: given_task(
            entry.task,
            train=entry.train,
            evaluate=entry.eval,
            fields=entry.fields,
            seed=entry.seed,
            target=entry.target,
            scorer=entry.scorer,
        ),
    )
    assert spec is not None, "a study's task has a name or files"
    return TaskPlan(entry.label or spec.written, spec)
