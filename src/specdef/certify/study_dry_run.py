"""A study file tried out without its weights: every layer, matrix and adapter resolved on the real configuration.

Random weights in bfloat16 stand for the model's, tensor by tensor, and nothing of it is held in memory or written. The
user's own files may be missing: they are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from specdef.architectures.resolve import ResolvedModel, resolve
from specdef.attacks.base import Intervention, Trains
from specdef.certify.attack_plan import AttackPlan
from specdef.certify.study_faults import StudyError, at
from specdef.certify.study_file import StudyFile, read_study
from specdef.certify.study_models import DefencePlan, ModelPlan
from specdef.certify.study_plan import StudyPlan, plan_without_files
from specdef.checkpoint.layout import load_config
from specdef.checkpoint.random_weights import random_checkpoint
from specdef.checkpoint.reader import Checkpoint
from specdef.core.results import Result
from specdef.locks.presets import lock_options
from specdef.models.base import LoadedModel, ModelKind, kind_of
from specdef.models.empty import empty_model
from specdef.models.sources import find_config
from specdef.tasks.base import TASKS, check_kind, make_task
from specdef.training.recipe import Recipe


@dataclass(frozen=True, repr=False)
class DryModel(Result):
    """One model of a study, without its weights.

    Attributes:
        label: what the study calls it.
        layers: as many as its architecture's map found.
        parameters: numbers in all its tensors.
        defences: label -> what it would change, by name: ``norm pairs``, ``matrices``.
        attacks: label -> numbers that are trained; of those that train less than all weights.
    """

    label: str
    layers: int
    parameters: int
    defences: Mapping[str, Mapping[str, int]]
    attacks: Mapping[str, int]


@dataclass(frozen=True, repr=False)
class DryRun(Result):
    """What a study would do.

    Attributes:
        title: the study's.
        models: each of them.
        runs: attacks on defended models, seeds and tasks counted; 0 where certificates choose their own.
        missing: why a file of the user's cannot be used yet, a sentence each.
    """

    title: str
    models: tuple[DryModel, ...]
    runs: int
    missing: tuple[str, ...]


def dry_run(study: StudyFile | Path | str) -> DryRun:
    """Try out a study on its models' configurations.

    Raises:
        SpecdefError: a fault of the file, said of its place. A file of data that is not there is none.
    """
    content = study if isinstance(study, StudyFile) else read_study(study)
    plan = plan_without_files(content)
    kinds, models = [], []
    for number, model in enumerate(plan.models):
        place = f"models[{number}]"
        folder = at(place, partial(find_config, model.model), argument="model")
        kinds.append(at(place, partial(kind_of, folder), argument="model"))
        models.append(_model(place, folder, kinds[-1], model, plan))
    for number, task in enumerate(plan.tasks):
        for kind in kinds:
            at(f"tasks[{number}]", partial(check_kind, TASKS.get(task.spec.name), kind))
    runs = len(models) * len(plan.defences) * len(plan.attacks) * max(1, len(plan.tasks)) * len(content.seeds)
    return DryRun(content.title, tuple(models), runs, tuple(_missing(plan)))


def _model(place: str, folder: Path, kind: ModelKind, model: ModelPlan, plan: StudyPlan) -> DryModel:
    empty = at(place, partial(empty_model, folder))
    shapes = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    checkpoint = random_checkpoint(folder, load_config(folder), shapes)
    resolved = at(place, partial(resolve, checkpoint.config, shapes))
    defences = {}
    for number, defence in enumerate(plan.defences):
        changed = partial(_changed, f"defences[{number}]", defence, checkpoint, resolved)
        defences[defence.label] = at(f"defences[{number}]", changed)
    attacks = {
        attack.label: trained
        for number, attack in enumerate(plan.attacks)
        if (trained := _trained(f"attacks[{number}]", attack, folder, kind, plan.recipe)) is not None
    }
    return DryModel(
        model.label,
        len(resolved.layer_paths),
        sum(tensor.numel() for tensor in empty.parameters()),
        defences,
        attacks,
    )


def _changed(place: str, plan: DefencePlan, checkpoint: Checkpoint, model: ResolvedModel) -> dict[str, int]:
    """What a defence, or the locks of a chain, would change; nothing is known of a method before it has trained."""
    found: dict[str, int] = {}
    for part in plan.chain:
        found |= _changed(place, part, checkpoint, model)
    if plan.lock is not None:
        kind, options = lock_options(plan.lock, {**plan.options, "seed": plan.seed})
        found |= kind.reach(checkpoint, model, options)
    return found


def _trained(place: str, plan: AttackPlan, folder: Path, kind: ModelKind, recipe: Recipe) -> int | None:
    """How many numbers an attack trains; None for all weights."""
    narrow = [one for one in plan.interventions if one.trains is not Trains.WEIGHTS]
    if not narrow:
        return None
    adapted = at(place, partial(_adapted, narrow[0], LoadedModel(empty_model(folder), None, kind), recipe))
    return int(sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad))


def _adapted(intervention: Intervention, loaded: LoadedModel, recipe: Recipe) -> Any:
    return intervention.modify(loaded, (), recipe)


def _missing(plan: StudyPlan) -> Iterator[str]:
    """Files that the study names and that cannot be used here."""
    for number, task in enumerate(plan.tasks):
        try:
            at(f"tasks[{number}]", partial(make_task, task.spec))
        except StudyError as error:
            yield str(error)
    text = plan.study.text
    if text is not None and not Path(text).is_file():
        yield f"`text` must be a file that exists; {text} does not."
