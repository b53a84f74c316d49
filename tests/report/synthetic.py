"""Certificates without models: the real threat models and verdicts over results that are made up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdef.attacks.run import AttackResult
from specdef.certify.attack_plan import AttackPlan
from specdef.certify.cell import Cell, Subject
from specdef.certify.cell_result import FinishedCell, Measured, crashed
from specdef.certify.certificate import Certificate
from specdef.certify.certify_study import certify_study
from specdef.certify.effort import QUICK, Effort
from specdef.certify.run_cell import cell_result
from specdef.certify.store import Store
from specdef.certify.study import MultiplierSource, Study
from specdef.tasks.base import TaskSpec, make_task
from specdef.training.outcome import Evaluation, Judgement, Outcome, StopReason, classify_outcome
from specdef.training.recipe import Recipe

STEPS = (0, 10, 20, 30, 40, 50, 60)
Behaviour = Callable[[Cell], str]


def result(kind: str, *, target: float, seed: int = 0) -> FinishedCell:
    """A cell's outcome of some kind, judged by the real rule: ``broken 20``, ``regained 50``, ``stall 0.4``, ..."""
    word, _, amount = kind.partition(" ")
    if word == "crashed":
        return crashed("the cell's process ended with signal 9 (often: out of memory)")
    if word == "invalid":
        first = Evaluation(0, 0.25, 900.0)
        note = "step 0: perplexity is 900, not 43.2, as the undefended model's; the attack changed the function"
        return _outcome(
            AttackResult(
                Judgement(Outcome.INVALID, None, first, None, False),
                StopReason.INVALID,
                [first],
                0,
                0.0,
                100,
                target,
                note,
            )
        )
    points = list(_points(word, float(amount), target, seed))
    judgement = classify_outcome(points, target=target, utility_factor=2.0)
    reason = StopReason.TARGET if judgement.step is not None else StopReason.BUDGET
    return _outcome(AttackResult(judgement, reason, points, points[-1].step, 2.1 * points[-1].step, 100, target))


def _points(word: str, amount: float, target: float, seed: int) -> Iterator[Evaluation]:
    reached = amount + 10 * seed if word in ("broken", "regained") else 60.0
    top = target + 0.05 if word in ("broken", "regained") else amount
    for step in STEPS:
        share = step / reached
        ratio = 1.0 + 0.3 * share
        if word == "regained" and 0 < step < reached:
            ratio = 1.0 + 40 * math.sin(math.pi * share)
        if word in ("collapse", "nan"):
            ratio = 10.0 ** (5 * share)
        perplexity = math.inf if word == "nan" and step >= 30 else 43.2 * ratio
        score = 0.25 + (top - 0.25) * (share if word != "collapse" or step <= 10 else 0.2 / share)
        yield Evaluation(step, score, perplexity, None if step == 0 else 3.0 - 2 * share)
        if step >= reached:
            return


def _outcome(found: AttackResult) -> FinishedCell:
    return FinishedCell(cell_result(found), Measured(found.train_seconds + 3, found.train_seconds, 1 << 30))


@dataclass(frozen=True)
class Pretended:
    """An executor that trains nothing."""

    behaviour: Behaviour

    def run(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, FinishedCell]]:
        target = make_task(TaskSpec("facts")).target
        for cell in cells:
            kind = self.behaviour(cell) if cell.subject.digest.startswith("b") else unlocked(cell)
            yield cell, result(kind, target=target, seed=cell.attack.recipe.seed)


def unlocked(cell: Cell) -> str:
    if cell.task.control is not None:
        return "stall 0.26"
    found = {3e-5: "stall 0.6", 1e-4: "broken 40", 3e-4: "broken 20", 1e-3: "broken 20"}
    return found.get(cell.attack.recipe.lr, "stall 0.3")


def falls_to_search(cell: Cell) -> str:
    """Holds at ordinary rates, slowed at low ones, broken by another optimizer and by adapters: every outcome once."""
    recipe = cell.attack.recipe
    if cell.attack.interventions:
        return "broken 10"
    if recipe.optimizer != "adamw":
        return "broken 20" if recipe.lr < 1e-2 and recipe.seed == 0 else "stall 0.5"
    if recipe.max_grad_norm is None:
        return "invalid"
    if recipe.batch_size == 16:
        return "regained 50"
    if recipe.seed == 2:
        return "crashed"
    bounds = (
        (3e-3, "crashed"),
        (1e-3, "nan 0.9"),
        (3e-4, "collapse 0.5"),
        (3e-5, "stall 0.45"),
        (1e-6, "collapse 0.4"),
    )
    for lr, kind in (*bounds, (5e-7, "regained 60"), (1e-7, "broken 50")):
        if recipe.lr >= lr:
            return kind
    return "stall 0.3"


def holds(cell: Cell) -> str:
    return "collapse 0.5" if cell.attack.recipe.lr > 1e-4 else "stall 0.4"


def study(
    *,
    name: str = "model-locked",
    multiplier: float = 1024.0,
    task: str = "facts",
    effort: Effort = QUICK,
    also: tuple[AttackPlan, ...] = (),
    base: Subject | None = None,
) -> Study:
    spec = TaskSpec(task)
    return Study(
        original=Subject("/nowhere/model", "a" * 64),
        locked=Subject(f"/nowhere/{name}", "b" * 56 + f"{int(multiplier):08d}"),
        method="fold",
        multiplier=multiplier,
        multiplier_source=MultiplierSource.MANIFEST,
        locked_modules=("model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"),
        spec=spec,
        task=make_task(spec),
        task_digest="c" * 64,
        text=None,
        text_digest="d" * 64,
        recipe=Recipe(),
        effort=effort,
        stop=effort.stop,
        also=also,
        base=base,
    )


def certify(
    folder: Path, behaviour: Behaviour, threats: Sequence[str] = ("T0", "T1", "T2", "T3"), **changes: Any
) -> Certificate:
    return certify_study(study(**changes), Store(folder), Pretended(behaviour), threats=threats)


def change_certificate(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "certificate.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
