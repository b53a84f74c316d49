"""`certify_model`: run the threat models against a model and write the certificate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdef.certify.cell import recipe_to_json
from specdef.certify.environment import environment
from specdef.certify.executors.local import Executor
from specdef.certify.findings import Known
from specdef.certify.result import StoredCell, evaluation_to_wire
from specdef.certify.store import Store, write_json
from specdef.certify.study import Study
from specdef.certify.sweep import OnCell, sweep
from specdef.certify.threats import THREATS, Plan, window
from specdef.certify.verdict import ThreatVerdict, attack_of, judge_threat
from specdef.core.schema import plain
from specdef.errors import SpecdefError
from specdef.training.outcome import Evaluation

CERTIFICATE = "certificate.json"
CONTAINS = {"T0": ("T0",), "T1": ("T0", "T1"), "T2": ("T2",), "T3": ("T3",), "T4": ("T0", "T4")}
"""The cells each threat model's verdict is read from: whoever searches learning rates also tries the ordinary ones."""
UNTRIED = (
    "more steps, larger batches and longer data than the budget above",
    "stopping between two evaluations: a target reached and lost again within that many steps is not seen",
    "sampling attacks, prompting, activation steering, distillation",
)


@dataclass(frozen=True)
class Certificate:
    """A finished certificate: `content` is what ``certificate.json`` holds."""

    content: dict[str, Any]
    cells: list[StoredCell]

    @property
    def verdicts(self) -> dict[str, str]:
        """Threat model -> verdict."""
        return {name: str(entry["verdict"]) for name, entry in self.content["threat_models"].items()}


Stage = Callable[[str], None]


def certify_study(
    study: Study,
    store: Store,
    executor: Executor,
    *,
    threats: Sequence[str] = tuple(THREATS),
    on_cell: OnCell | None = None,
    on_stage: Stage | None = None,
    command: str | None = None,
) -> Certificate:
    """Run the threat models in order and judge them.

    Args:
        study: what is certified.
        store: finished cells; those it holds are not run again.
        executor: where cells run.
        threats: which threat models; a stronger one uses what the weaker ones found.
        on_cell: called after every cell.
        on_stage: called with the name of each stage.
        command: noted in the certificate.

    Raises:
        SpecdefError: unknown threat model, or the task measures nothing: the undefended model does not reach the
            target within the utility budget at two learning rates of the window.
    """
    check_threats(threats)
    started = time.perf_counter()
    known = Known()

    def follow(name: str, plan: Plan) -> None:
        if on_stage is not None:
            on_stage(name)
        found: list[StoredCell] | None = None
        while True:
            try:
                cells = next(plan) if found is None else plan.send(found)
            except StopIteration:
                return
            found = sweep(cells, store, executor, on_cell=on_cell)
            known.results.setdefault(name, []).extend(found)

    follow("unlocked", window(study, known))
    _require_calibrated(study, known)
    wanted = {part for name in threats for part in CONTAINS[name]}
    for name, plan in THREATS.items():
        if name in wanted:
            follow(name, plan(study, known))
    seconds = time.perf_counter() - started
    content = {**_content(study, known, threats, seconds), "command": command}
    cells = _all_cells(known)
    for cell in cells:
        store.keep(cell)
    write_json(store.folder / CERTIFICATE, content)
    return Certificate(content, cells)


def check_threats(threats: Sequence[str]) -> None:
    """Raise SpecdefError unless every name is a threat model's and there is at least one."""
    unknown = sorted(set(threats) - set(THREATS))
    if unknown or not threats:
        raise SpecdefError(f"`threats` must be any of {', '.join(THREATS)}; got {', '.join(unknown) or 'none'}.")


def _require_calibrated(study: Study, known: Known) -> None:
    if len(known.working) >= 2:
        return
    outcomes = ", ".join(
        f"lr {cell.attack.recipe.lr:g}: {cell.result.note or cell.result.outcome.value}"
        for cell in known.results["unlocked"]
    )
    raise SpecdefError(
        f"Task {study.spec.name} measures nothing on this model: undefended, it must reach {study.task.target:g} "
        f"within the utility budget at two learning rates or more ({outcomes}). Give more steps or another task."
    )


def _content(study: Study, known: Known, threats: Sequence[str], seconds: float) -> dict[str, Any]:
    unlocked = judge_threat(known.results["unlocked"], unlocked_steps=None, reference=known.reference)
    verdicts: dict[str, ThreatVerdict] = {}
    for name in threats:
        cells = [cell for part in CONTAINS[name] for cell in known.results.get(part, [])]
        verdicts[name] = judge_threat(
            cells,
            unlocked_steps=unlocked.steps,
            reference=known.reference,
            not_tried=known.not_tried.get(name, ()),
            eval_every=study.recipe.eval_every,
        )
    return {
        "specdef_certificate": 1,
        "subject": {"name": Path(study.locked.path).name, "digest": study.locked.digest, "method": study.method},
        "multiplier": study.multiplier,
        "multiplier_source": study.multiplier_source,
        "original": {"name": Path(study.original.path).name, "digest": study.original.digest},
        "task": {
            "name": study.spec.name,
            "digest": study.task_digest,
            "target": study.task.target,
            "chance": study.task.chance,
            "samples": len(study.task.samples),
        },
        "utility": {
            "text_digest": study.text_digest,
            "reference_perplexity": known.reference,
            "factor": study.utility_factor,
        },
        "recipe": recipe_to_json(study.recipe),
        "unlocked": {"working_learning_rates": list(known.working), **unlocked.to_json()},
        "threat_models": {name: verdict.to_json() for name, verdict in verdicts.items()},
        "cells": [_row(name, cell) for name, found in known.results.items() for cell in _unique(found)],
        "not_tried": [*(f"threat model {name}" for name in THREATS if name not in threats), *UNTRIED],
        "seeds": sorted({c.attack.recipe.seed for found in known.results.values() for c in found}),
        "environment": plain(environment(study.machine.device or "cpu")) | {"threads_per_cell": study.machine.threads},
        "seconds": round(seconds, 1),
        "cell_seconds": round(sum(cell.measured.seconds or 0 for cell in _all_cells(known)), 1),
        "cell_environments": _environments(_all_cells(known)),
    }


def _row(name: str, cell: StoredCell) -> dict[str, Any]:
    result, recipe = cell.result, cell.attack.recipe
    return {
        "threat_model": name,
        "cell": cell.key,
        "attack": attack_of(cell).label,
        "optimizer": recipe.optimizer,
        "lr": recipe.lr,
        "seed": recipe.seed,
        "outcome": result.outcome.value,
        "step": result.step,
        "best_score": result.best and result.best.score,
        "best_at_any_cost": _best_at_any_cost(result.evaluations),
        "last": _point(result.evaluations[-1]) if result.evaluations else None,
        "diverged_at": result.diverged_at,
        "recovered": result.recovered,
        "note": result.note,
        **({"rewrite": {**plain(result.rewrites[0]), **_cost(cell)}} if result.rewrites else {}),
    }


def _cost(cell: StoredCell) -> dict[str, Any]:
    """What an attack that rewrites weights cost: the rewriting, and a training step afterwards."""
    steps = cell.result.steps
    return {
        "seconds": cell.measured.rewrite_seconds,
        "seconds_per_step": round((cell.measured.train_seconds or 0.0) / steps, 4) if steps else None,
        "peak_memory_bytes": cell.measured.peak_memory_bytes,
    }


def _all_cells(known: Known) -> list[StoredCell]:
    """Every cell once, in order of first use."""
    return _unique([cell for found in known.results.values() for cell in found])


def _environments(cells: Sequence[StoredCell]) -> list[dict[str, Any]]:
    """The different machines, libraries and commits the cells come from: finished cells may be older than this run."""
    found = [plain(cell.measured.environment) for cell in cells]
    return [entry for index, entry in enumerate(found) if entry not in found[:index]]


def _best_at_any_cost(evaluations: Sequence[Evaluation]) -> dict[str, Any] | None:
    """The evaluation with the highest score, whatever became of utility: what `held by collapse` may hide."""
    found = max(evaluations, key=lambda point: point.score, default=None)
    return None if found is None else _point(found)


def _point(point: Evaluation) -> dict[str, Any]:
    return {("perplexity" if k == "utility" else k): v for k, v in evaluation_to_wire(point).items()}


def _unique(cells: Sequence[StoredCell]) -> list[StoredCell]:
    return list({cell.key: cell for cell in cells}.values())
