"""`run_study`: run what a study file says, as far as it is not done yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from specdef.certify.api import certify_model
from specdef.certify.cell import Cell, Subject, digest_of, subject_of
from specdef.certify.effort import QUICK
from specdef.certify.environment import environment
from specdef.certify.events import Listen
from specdef.certify.reference import kept_reference
from specdef.certify.resources import Resources
from specdef.certify.result import StoredCell
from specdef.certify.store import Store, StoreError, write_json
from specdef.certify.study import WINDOW, Study, make_study
from specdef.certify.study_faults import StudyError, at
from specdef.certify.study_file import StudyFile, read_study
from specdef.certify.study_models import Copies, DefencePlan, ModelPlan
from specdef.certify.study_plan import StudyPlan, TaskPlan, plan_study
from specdef.certify.study_results import RESULTS, Row, StudyResults, Table, results_to_wire, summarise
from specdef.certify.sweep import OnCell, sweep
from specdef.core.leftovers import LEFTOVER, remove_leftovers
from specdef.models.base import MODEL_KINDS, kind_of
from specdef.models.sources import find_model
from specdef.tasks.base import parse_task
from specdef.tasks.utility import utility_for

STUDY, MODELS, CERTIFICATES = "study.json", "models", "certificates"
OnStage = Callable[[str], None]


@dataclass(frozen=True)
class Defended:
    """One defended model."""

    plan: DefencePlan
    folder: Path
    subject: Subject


@dataclass(frozen=True)
class Field:
    """One model at one task, and all its defended copies.

    Attributes:
        model: what the study says of it.
        task: likewise.
        study: the undefended model as its own subject; every cell of the field is made from it.
        reference: utility of the undefended model.
        utility: what utility is measured as.
        defended: in the study's order.
    """

    model: ModelPlan
    task: TaskPlan
    study: Study
    reference: float
    utility: str
    defended: tuple[Defended, ...]


def run_study(
    study: StudyFile | Path | str,
    out: Path | str,
    *,
    shared: Path | None = None,
    resources: Resources | None = None,
    on_cell: OnCell | None = None,
    on_stage: OnStage | None = None,
    on_event: Listen | None = None,
    command: str | None = None,
) -> StudyResults:
    """Run a study: make the defended models, run the attacks that are not done yet, write ``results.json``.

    The same call goes on where a killed one was. A study that was edited runs what is new in it and keeps the rest.

    Args:
        study: a study file, or what was read from one.
        out: folder of the study: defended models, finished cells, results. Created when missing.
        shared: folder of defended models and finished cells that several studies use; `out` itself when None.
        resources: where cells run; as many at once as cores and memory allow when None.
        on_cell: called after every finished cell, with how many are done and how many there are.
        on_stage: called with the name of every stage.
        on_event: told where every cell is while it runs; called from other threads.
        command: noted in the results.

    Raises:
        SpecdefError: a fault of the file, said of its place, or a folder that cannot be used. Finished cells are kept.
    """
    content = study if isinstance(study, StudyFile) else read_study(study)
    plan, folder, where = plan_study(content), Path(out), resources or Resources()
    where.check()
    attacks = tuple(at(f"attacks[{number}]", one.bound) for number, one in enumerate(plan.attacks))
    plan = replace(plan, attacks=attacks)
    _claim(folder, content)
    common = folder if shared is None else shared
    for place in (folder, common / MODELS):
        remove_leftovers(place)
    store, say = Store(common), on_stage or (lambda stage: None)
    fields = _fields(plan, common, where, say)
    certificates: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    if content.certify:
        certificates = tuple(
            _certify(plan, folder, store, field, defended, on_cell, say, on_event, command)
            for field in fields
            for defended in field.defended
        )
    else:
        tables = _attack(plan, store, fields, on_cell, say, on_event)
    results = StudyResults(
        specdef_study_results=1,
        title=content.title,
        rows=content.rows,
        seeds=len(content.seeds),
        steps=plan.recipe.steps,
        tables=tables,
        certificates=certificates,
        environment=environment(fields[0].study.resources.device or "cpu"),
        command=command,
    )
    write_json(folder / RESULTS, results_to_wire(results))
    return results


def _claim(folder: Path, study: StudyFile) -> None:
    """Write the study into its folder, which must be new or a study's."""
    path = folder / STUDY
    if not path.is_file() and folder.exists():
        foreign = not folder.is_dir() or any(not LEFTOVER.match(entry.name) for entry in folder.iterdir())
        if foreign:
            raise StoreError(f"`out` must be a new folder or one of `specdef run`; {folder} is neither.")
    write_json(path, msgspec.to_builtins(study))


def _fields(plan: StudyPlan, out: Path, resources: Resources, say: OnStage) -> tuple[Field, ...]:
    """Every model at every task, with its defended copies."""
    study = plan.study
    text = None if study.text is None else Path(study.text)
    resources = replace(resources, threads=resources.threads or study.threads)
    found = []
    for number, model in enumerate(plan.models):
        say(f"{model.label}: defended copies")
        original = at(f"models[{number}]", partial(find_model, model.model))
        kind = at(f"models[{number}]", partial(kind_of, original))
        utility = at("utility", partial(utility_for, kind, study.utility))
        copies = Copies(out / MODELS, text, digest_of(utility.read(text)))
        original = copies.prepared(original, model, f"models[{number}].prepare")
        defended = []
        for index, defence in enumerate(plan.defences):
            say(f"{model.label}: {defence.label}")
            folder = copies.defended(original, defence, f"defences[{index}]")
            defended.append(Defended(defence, folder, subject_of(folder)))
        for index, task in enumerate(plan.tasks or (TaskPlan(kind.default_task, parse_task(kind.default_task)),)):
            make = partial(
                make_study,
                original,
                original,
                task.spec,
                text=text,
                recipe=plan.recipe,
                window=study.window or WINDOW,
                utility=study.utility,
                utility_factor=study.utility_factor,
                resources=resources,
            )
            made = at(f"tasks[{index}]", make)
            say(f"{model.label}: {utility.name} before training")
            reference = kept_reference(out, made.cell(made.original))
            if not math.isfinite(reference):
                raise StudyError(f"`models[{number}]` must be a model of some use; its {utility.name} is not finite.")
            found.append(Field(model, task, made, reference, utility.name, tuple(defended)))
    return tuple(found)


def study_cells(plan: StudyPlan, field: Field, defended: Defended) -> list[list[Cell]]:
    """The cells of one defended model: attack by attack, seed by seed.

    Step 0 of a defended model is checked against the undefended one; that one needs no comparison with itself.
    """
    alone = defended.subject.digest == field.study.original.digest
    return [
        [
            field.study.cell(
                defended.subject,
                interventions=attack.interventions,
                reference=None if alone else field.reference,
                changed=defended.plan.changes_function,
                stop=attack.stop,
                seed=seed,
                **attack.changes,
            )
            for seed in plan.study.seeds
        ]
        for attack in plan.attacks
    ]


def _attack(
    plan: StudyPlan,
    store: Store,
    fields: tuple[Field, ...],
    on_cell: OnCell | None,
    say: OnStage,
    on_event: Listen | None,
) -> tuple[Table, ...]:
    """Run every cell that is not finished, all of the study in one sweep."""
    say("attacks")
    grid = {
        (f, d): study_cells(plan, field, found)
        for f, field in enumerate(fields)
        for d, found in enumerate(field.defended)
    }
    cells = [cell for attacks in grid.values() for seeds in attacks for cell in seeds]
    workers = min(field.study.resources.workers or 1 for field in fields)
    executor = replace(fields[0].study.resources, workers=workers).executor(on_event)
    finished: Mapping[str, StoredCell] = {cell.key: cell for cell in sweep(cells, store, executor, on_cell=on_cell)}
    return tuple(
        Table(
            model=field.model.label,
            task=field.task.label,
            reference=field.reference,
            utility=field.utility,
            target=field.study.task.target,
            rows=tuple(
                Row(
                    found.plan.label,
                    found.subject.digest == field.study.original.digest,
                    tuple(
                        summarise(attack.label, [finished[cell.key] for cell in seeds])
                        for attack, seeds in zip(plan.attacks, grid[f, d], strict=True)
                    ),
                )
                for d, found in enumerate(field.defended)
            ),
        )
        for f, field in enumerate(fields)
    )


def _certify(
    plan: StudyPlan,
    out: Path,
    store: Store,
    field: Field,
    defended: Defended,
    on_cell: OnCell | None,
    say: OnStage,
    on_event: Listen | None,
    command: str | None,
) -> str:
    """One certificate; returns its folder's name inside the study's."""
    name = f"{CERTIFICATES}/{_identity(field, defended, plan.study.effort)}"
    label = f"{field.model.label}, {defended.plan.label}"
    study, spec = plan.study, field.task.spec
    certify_model(
        defended.folder,
        out / name,
        original=field.study.original.path,
        task=spec,
        threats=study.certify,
        base=study.base,
        recipe=plan.recipe,
        window=field.study.window,
        text=study.text,
        utility=study.utility,
        utility_factor=study.utility_factor,
        effort=study.effort,
        resources=field.study.resources,
        cells=store.cells,
        on_cell=on_cell,
        on_stage=lambda stage: say(f"{label}: {stage}"),
        on_event=on_event,
        command=command,
    )
    return name


def _identity(field: Field, defended: Defended, effort: str) -> str:
    own = utility_for(MODEL_KINDS.get(field.study.model_kind), None).name
    found: dict[str, Any] = {
        "original": field.study.original.digest,
        "defended": defended.subject.digest,
        "task": field.study.task_digest,
        "text": field.study.text_digest,
        **({} if effort == QUICK.name else {"effort": effort}),
        **({} if field.utility == own else {"utility": field.utility}),
    }
    return digest_of(found)[:16]
