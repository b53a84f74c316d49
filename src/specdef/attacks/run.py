"""Fine-tuning as an attack: one model, one task, one recipe; what came out, in steps, score and utility."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from specdef.attacks.base import Attack
from specdef.core.processes import from_first
from specdef.models.base import LoadedModel
from specdef.tasks.base import Task, check_kind
from specdef.tasks.score import as_score
from specdef.tasks.utility import Utility, UtilityData
from specdef.training.loop import make_trainer, train
from specdef.training.outcome import (
    Evaluation,
    Judgement,
    Outcome,
    StopReason,
    classify_outcome,
    should_stop,
)


@dataclass(frozen=True)
class AttackResult:
    """What an attack achieved.

    Attributes:
        judgement: outcome, steps to the target, best score inside the utility budget, divergence, recovery.
        reason: why the loop ended.
        evaluations: every measurement, step 0 first.
        steps: optimizer steps done.
        train_seconds: time in training steps only.
        trained: number of trained parameters.
        target: the score to reach.
        note: why the run is invalid (step 0 is not the undefended model's, no weight changed), or "".
    """

    judgement: Judgement
    reason: StopReason
    evaluations: list[Evaluation]
    steps: int
    train_seconds: float
    trained: int
    target: float
    note: str = ""


def run_attack(
    loaded: LoadedModel,
    task: Task,
    general: UtilityData,
    attack: Attack,
    *,
    reference: float | None = None,
    changed: bool = False,
    folder: Path | None = None,
    progress: Callable[[Evaluation], None] | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> AttackResult:
    """Fine-tune a model in place and say how far it got.

    Args:
        loaded: the model; it is changed.
        task: what is trained and scored.
        general: general data, prepared for this model: its utility is watched, and some is mixed into training.
        attack: how.
        reference: the undefended model's utility; a defended model that differs from it at step 0 is a broken attack,
            and the result is `invalid`, never `held`. An attack that changes the function by design is judged by the
            undefended model's utility instead.
        changed: so is a model whose defence changes the function by design.
        folder: where the model was loaded from, for interventions that look at its weights.
        progress: called after every evaluation.
        on_step: called with the number of steps done, after every step.

    Raises:
        SpecdefError: the task is for another kind of model, or the attack cannot be made on this one.
    """
    import torch

    check_kind(task, loaded.kind)
    recipe = attack.recipe
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(recipe.seed)
        samples = loaded.kind.encode(task.samples, loaded)
        for one in attack.interventions:
            loaded = replace(loaded, model=one.modify(loaded, samples, recipe))
        trained = sum(p.numel() for p in loaded.model.parameters() if p.requires_grad)
        trainer = make_trainer(loaded, recipe, samples, general.retained)
        for one in attack.interventions:
            one.attach(getattr(trainer.optimizer, "optimizer", trainer.optimizer), loaded.model, folder)

        def evaluate(current: Any, step: int, loss: float | None) -> Evaluation:
            found = measure(current, loaded.processor, task, general, step=step, loss=loss)
            return from_first(lambda: found)  # all go on or stop together, whatever the last digit

        kept = attack.keeps_function and not changed
        base, checked = (None, reference) if kept else (reference, None)
        decide = partial(
            _decide, task=task, attack=attack, utility=general.utility, reference=checked, base=base, kept=kept
        )
        run = train(trainer, evaluate, decide, progress=progress, on_step=on_step)
    judgement, note = judge(
        run.evaluations,
        task,
        general.utility,
        utility_factor=attack.utility_factor,
        reference=checked,
        base=base,
        still=stillness(run.steps, run.moved),
        kept=kept,
    )
    return AttackResult(
        judgement, run.reason, run.evaluations, run.steps, run.train_seconds, trained, task.target, note
    )


def measure(
    model: Any, processor: Any, task: Task, general: UtilityData, *, step: int, loss: float | None = None
) -> Evaluation:
    """Score and utility of a model in evaluation mode."""
    score = as_score(task.metric(model, processor))
    value, utility_by_class = general.measure_by_class(model)
    return Evaluation(step, score.value, value, loss, score.by_group, score.by_class, utility_by_class)


def judge(
    evaluations: Sequence[Evaluation],
    task: Task,
    utility: Utility,
    *,
    utility_factor: float,
    reference: float | None = None,
    base: float | None = None,
    still: str = "",
    kept: bool = True,
) -> tuple[Judgement, str]:
    """What a run came to, and why it does not count, or "".

    Args:
        evaluations: the first is step 0.
        task: what was trained and scored.
        utility: what was watched.
        utility_factor: its budget.
        reference: the undefended model's utility, which step 0 must have; None leaves that out.
        base: what utility is measured against; that of step 0 when None.
        still: why the run says nothing although step 0 is sound, or "".
        kept: whether the attack left the model's function as it was before training. Where it did not, a score at the
            target at step 0 is what the attack achieved, and not the lack of anything to learn.
    """
    note = _step_zero_fault(evaluations[0], reference, task, utility, kept) or still
    if note:
        return Judgement(Outcome.INVALID, None, evaluations[0], None, False), note
    judgement = classify_outcome(
        evaluations, target=task.target, utility_factor=utility_factor, base=base, within=utility.within
    )
    return judgement, ""


def _decide(
    evaluations: Sequence[Evaluation],
    *,
    task: Task,
    attack: Attack,
    utility: Utility,
    reference: float | None,
    base: float | None,
    kept: bool,
) -> StopReason | None:
    if len(evaluations) == 1 and _step_zero_fault(evaluations[0], reference, task, utility, kept):
        return StopReason.INVALID
    return should_stop(
        evaluations,
        target=task.target,
        utility_factor=attack.utility_factor,
        stop=attack.stop,
        base=base,
        within=utility.within,
        ruined=utility.ruined,
    )


def _step_zero_fault(start: Evaluation, reference: float | None, task: Task, utility: Utility, kept: bool) -> str:
    if utility.changed(start.utility, reference):
        wanted = "a finite number" if reference is None else f"{reference:.4g}, as the undefended model's"
        return f"step 0: {utility.name} is {start.utility:.4g}, not {wanted}; the attack changed the function"
    if kept and start.score >= task.target:
        return f"step 0: the score is {start.score:.3g} already, the target {task.target:g}: nothing to learn"
    return ""


def stillness(steps: int, moved: bool) -> str:
    """A run that changed no weight says nothing about a defence: an optimizer that does not step looks like a lock."""
    if moved or not steps:
        return ""
    return (
        f"{steps} steps changed no weight: the learning rate is below what their precision resolves, or the "
        "optimizer does not step"
    )
