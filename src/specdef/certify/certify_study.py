"""Run the threat models against a model, judge them and write the certificate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

from specdef.attacks.wire import recipe_to_wire
from specdef.certify.ahead import working_ahead
from specdef.certify.calibration import calibrate
from specdef.certify.cell import Cell
from specdef.certify.certificate import (
    Calibration,
    CellEnvironment,
    Certificate,
    ModelFacts,
    SubjectFacts,
    TaskFacts,
    UtilityFacts,
)
from specdef.certify.certificate_file import write_certificate
from specdef.certify.certified_cell import certified, control_facts, environments
from specdef.certify.environment import environment
from specdef.certify.executors.local import Executor
from specdef.certify.findings import TASK_CONTROLS, UNLOCKED, Findings
from specdef.certify.result import StoredCell
from specdef.certify.store import Store
from specdef.certify.study import Study
from specdef.certify.sweep import OnCell
from specdef.certify.task_controls import control_task
from specdef.certify.threat_model import THREATS, Plan, follow, in_order, named_threats, needing_base, ordinary_threats
from specdef.certify.timed_cells import OutOfTimeError, TimedCells
from specdef.certify.verdict import ThreatVerdict, judge_threat
from specdef.core.schema import plain
from specdef.errors import SpecdefError
from specdef.tasks.utility import RUIN, UTILITIES

RUINED = (f"training on after perplexity, or another cost, is above {RUIN:g} times the start's: such a run is ended",)
UNTRIED = (
    "more steps, larger batches and longer data than the budget above",
    "stopping between two evaluations: a target reached and lost again within that many steps is not seen",
    "sampling attacks, prompting, activation steering, distillation",
)

UNFINISHED = "threat model {}: not done after {:g} minutes; the same command goes on"
Stage = Callable[[str], None]
Run = Callable[[Sequence[Cell]], list[StoredCell]]


def certify_study(
    study: Study,
    store: Store,
    executor: Executor,
    *,
    threats: Sequence[str] | None = None,
    minutes: float | None = None,
    on_cell: OnCell | None = None,
    on_stage: Stage | None = None,
    command: str | None = None,
) -> Certificate:
    """Run the threat models in order and judge them.

    Args:
        study: what is certified.
        store: finished cells; those it holds are not run again.
        executor: where cells run.
        threats: which threat models, all when None; a stronger one uses what the weaker ones found.
        minutes: how long new cells are begun; see `certify_model`.
        on_cell: called after every cell.
        on_stage: called with the name of each stage.
        command: noted in the certificate.

    Raises:
        SpecdefError: unknown threat model, one that needs base weights without any, the task measures nothing (the
            undefended model does not reach the target within the utility budget at two learning rates of the window),
            or the minutes are over before one threat model is done.
    """
    threats = ordinary_threats() if threats is None else threats
    check_threats(threats)
    if study.also:
        threats = (*threats, *(threat.name for threat in THREATS if threat.own))
    if study.base is None and (needing := needing_base(threats)):
        raise SpecdefError(
            f"`base` must be given with threat model {', '.join(needing)}: the public base weights. Only a lock's "
            "are known to be the undefended model's."
        )
    findings, cells = Findings(), TimedCells(store, minutes, on_cell)

    def likely(pending: Sequence[Cell]) -> list[Cell]:
        return cells.likely(partial(_follow_all, study, Findings(), threats), pending)

    with working_ahead(executor, likely) as working:
        left = _follow_all(study, findings, threats, partial(cells.run, working), on_stage)
    judged = [name for name in threats if name not in left]
    if not judged:
        raise SpecdefError(
            f"`minutes` must be enough for a threat model; after {minutes:g} none is done. Finished cells are kept in "
            f"{store.folder}: the same command goes on."
        )
    unfinished = [UNFINISHED.format(name, minutes) for name in threats if name in left]
    others = [f"threat model {name}" for name in named_threats() if name not in threats]
    certificate = _certificate(study, findings, judged, (*unfinished, *others), cells.seconds, command)
    for cell in _all_cells(findings):
        store.keep(cell)
    write_certificate(certificate, store.folder)
    return certificate


def _follow_all(
    study: Study, findings: Findings, threats: Sequence[str], run: Run, on_stage: Stage | None = None
) -> list[str]:
    """Every stage, one after the other; names of the threat models for which there was no time."""
    left = in_order(threats)

    def stage(name: str, plan: Plan) -> None:
        if on_stage is not None:
            on_stage(name)
        for found in follow(plan, run):
            findings.results.setdefault(name, []).extend(found)

    try:
        stage(UNLOCKED, calibrate(study, findings))
        _require_calibrated(study, findings)
        stage(TASK_CONTROLS, control_task(study, findings))
        while left:
            stage(left[0].name, left[0].cells(study, findings))
            del left[0]
    except OutOfTimeError:
        for threat in left:  # half a search is no verdict; its cells stay in the store
            findings.results.pop(threat.name, None)
    return [threat.name for threat in left]


def check_threats(threats: Sequence[str]) -> None:
    """Raise SpecdefError unless every name is a threat model's and there is at least one."""
    known = named_threats()
    unknown = sorted(set(threats) - set(known))
    if unknown or not threats:
        raise SpecdefError(f"`threats` must be any of {', '.join(known)}; got {', '.join(unknown) or 'none'}.")


def _require_calibrated(study: Study, findings: Findings) -> None:
    if len(findings.working) >= 2:
        return
    outcomes = ", ".join(
        f"lr {cell.attack.recipe.lr:g}: {cell.result.note or _undefended(cell)}" for cell in findings.results[UNLOCKED]
    )
    raise SpecdefError(
        f"Task {study.spec.name} measures nothing on this model: undefended, it must reach {study.task.target:g} "
        f"within the utility budget at two learning rates or more ({outcomes}). Give more steps or another task."
    )


def _undefended(cell: StoredCell) -> str:
    """How a run on the undefended model ended: it has nothing to hold with."""
    return "target not reached" if cell.result.counts and not cell.result.is_broken else cell.result.outcome.value


def _certificate(
    study: Study,
    findings: Findings,
    threats: Sequence[str],
    unjudged: Sequence[str],
    seconds: float,
    command: str | None,
) -> Certificate:
    cells = _all_cells(findings)
    unlocked = judge_threat(
        findings.results[UNLOCKED], unlocked_steps=None, reference=findings.reference, target=study.task.target
    )
    known = {entry.name: getattr(unlocked, entry.name) for entry in fields(unlocked)}
    return Certificate(
        specdef_certificate=2,
        subject=SubjectFacts(Path(study.locked.path).name, study.locked.digest, study.method),
        original=ModelFacts(Path(study.original.path).name, study.original.digest),
        multiplier=study.multiplier,
        multiplier_source=study.multiplier_source,
        task=TaskFacts(
            study.spec.name, study.task_digest, study.task.target, study.task.chance, len(study.task.samples)
        ),
        utility=_utility(study, findings.reference),
        recipe=recipe_to_wire(study.recipe),
        unlocked=Calibration(**known, working_learning_rates=findings.working),
        threat_models={name: _verdict(study, findings, name, unlocked.steps) for name in threats},
        controls=tuple(map(control_facts, findings.results.get(TASK_CONTROLS, []))),
        cells=tuple(certified(name, cell) for name, found in findings.results.items() for cell in _unique(found)),
        not_tried=(
            *unjudged,
            *study.effort.untried,
            *(RUINED if study.stop == "ruin" else ()),
            *UNTRIED,
        ),
        seeds=tuple(sorted({cell.attack.recipe.seed for cell in cells})),
        environment=CellEnvironment(
            **plain(environment(study.resources.device or "cpu")), threads_per_cell=study.resources.threads
        ),
        seconds=round(seconds, 1),
        cell_seconds=round(sum(cell.measured.seconds or 0 for cell in cells), 1),
        cell_environments=environments(cells),
        command=command,
    )


def _verdict(study: Study, findings: Findings, name: str, unlocked_steps: float | None) -> ThreatVerdict:
    return judge_threat(
        [cell for part in THREATS.get(name).parts for cell in findings.results.get(part, [])],
        unlocked_steps=unlocked_steps,
        reference=findings.reference,
        target=study.task.target,
        not_tried=findings.not_tried.get(name, ()),
        eval_every=study.recipe.eval_every,
    )


def _utility(study: Study, reference: float | None) -> UtilityFacts:
    utility = UTILITIES.get(study.utility)
    return UtilityFacts(
        name=utility.name,
        unit=utility.unit,
        higher_is_better=utility.higher_is_better,
        text_digest=study.text_digest,
        reference=reference,
        factor=study.utility_factor,
        limit=None if reference is None else utility.limit(reference, study.utility_factor),
    )


def _all_cells(findings: Findings) -> list[StoredCell]:
    """Every cell once, in order of first use."""
    return _unique([cell for found in findings.results.values() for cell in found])


def _unique(cells: Sequence[StoredCell]) -> list[StoredCell]:
    return list({cell.key: cell for cell in cells}.values())
