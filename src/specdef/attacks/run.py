"""Fine-tuning as an attack: one model, one task, one recipe; what came out, in steps, score and utility."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from specdef.attacks.freeze_search import PREFIX, freeze_by_gradient, gradient_share
from specdef.attacks.lora import AdapterSpec, add_adapter
from specdef.attacks.rewrites.apply import Rewriting
from specdef.errors import SpecdefError
from specdef.models.tokens import encode_completions
from specdef.tasks.base import Task
from specdef.tasks.text.prose import split_text
from specdef.tasks.utilities.perplexity import perplexity, token_blocks
from specdef.training.batches import Batch
from specdef.training.loop import TrainingRun, make_trainer, train
from specdef.training.outcome import (
    Evaluation,
    Judgement,
    Outcome,
    StopReason,
    StopRule,
    classify_outcome,
    should_stop,
)
from specdef.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from specdef.locks.plan import Edit

RATED_OPTIMIZERS = ("adamw", "lion")
"""Optimizers whose step does not depend on the weights, weight decay apart."""
STEP_ZERO_TOLERANCE = 0.02
"""Largest relative change of perplexity at step 0: a lock keeps the function, so a larger one is a broken attack."""


@dataclass(frozen=True)
class Attack:
    """What is done to the model: full fine-tuning, adapters, or a part of it frozen.

    Attributes:
        recipe: how it is trained.
        adapter: train adapters beside frozen weights; None trains the weights.
        freeze: regular expression; parameters whose name it finds are not trained. ``gradients:0.5`` trains the half of
            the tensors with the smallest gradients.
        rewrite: how the weights are rewritten before training; None leaves them as published.
        channel_rates: give scaled channels learning rates in proportion to their scale, found in the weights.
        stop: ``budget`` goes on after divergence, ``paper`` stops there.
        utility_factor: how often the starting perplexity still counts as useful.
    """

    recipe: Recipe = field(default_factory=Recipe)
    adapter: AdapterSpec | None = None
    freeze: str | None = None
    stop: StopRule = "budget"
    utility_factor: float = 2.0
    rewrite: Rewriting | None = None
    channel_rates: bool = False

    def __post_init__(self) -> None:
        if self.stop not in ("budget", "paper"):
            raise SpecdefError(f"`stop` must be budget or paper; got {self.stop!r}.")
        if not 1 < self.utility_factor < math.inf:
            raise SpecdefError(f"`utility_factor` must be above 1; got {self.utility_factor!r}.")
        if self.freeze is not None and self.adapter is not None:
            raise SpecdefError("`freeze` must be left out with `lora`: adapters are trained beside weights all frozen.")
        if self.channel_rates and (self.adapter is not None or self.recipe.optimizer not in RATED_OPTIMIZERS):
            known = " and ".join(RATED_OPTIMIZERS)
            given = self.recipe.optimizer + ("" if self.adapter is None else " with lora")
            raise SpecdefError(f"`channel_rates` must be given with full fine-tuning by {known}; got {given}.")
        if self.freeze is not None:
            share = gradient_share(self.freeze)
            if share is not None:  # one spelling, so that one attack has one name
                object.__setattr__(self, "freeze", f"{PREFIX}{share:g}")
            try:
                re.compile(self.freeze)
            except re.error as error:
                raise SpecdefError(
                    f"`freeze` must be a regular expression; {self.freeze!r} is none ({error})."
                ) from error

    @property
    def label(self) -> str:
        """Short text for tables."""
        recipe, default = self.recipe, Recipe()
        parts = [recipe.optimizer, f"lr {recipe.lr:.3g}"]
        if recipe.max_grad_norm is None:
            parts.append("no clipping")
        unusual = (
            "batch_size",
            "gradient_accumulation_steps",
            "precision",
            "schedule",
            "warmup",
            "weight_decay",
            "retain_weight",
        )
        for name in unusual:
            value = getattr(recipe, name)
            if value != getattr(default, name):
                parts.append(f"{name.replace('_', ' ')} {value}")
        if self.adapter is not None:
            parts.append(self.adapter.label)
        if self.freeze is not None:
            share = gradient_share(self.freeze)
            frozen = f"frozen {self.freeze}" if share is None else f"only the {share:.0%} with the smallest gradients"
            parts.append(frozen)
        if recipe.clip_each:
            parts.append("clipped tensor by tensor")
        if recipe.eps is not None:
            parts.append(f"eps {recipe.eps:.3g}")
        if self.channel_rates:
            parts.append("a rate per channel")
        if self.rewrite is not None:
            parts.insert(0, f"{self.rewrite.label}, then {parts.pop(0)}")
        return ", ".join(parts)


@dataclass(frozen=True)
class TextBlocks:
    """General text as tokens, each [rows, tokens]: `train` is mixed into batches, `measure` gives perplexity."""

    train: Any
    measure: Any


def text_blocks(text: str, tokenizer: Any, *, train_length: int = 32, measure_length: int = 128) -> TextBlocks:
    """Cut a text into the rows an attack trains on and the rows its utility is measured on."""
    measure, mix = split_text(text)
    return TextBlocks(
        token_blocks(mix, tokenizer, length=train_length, max_blocks=512),
        token_blocks(measure, tokenizer, length=measure_length, max_blocks=32),
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
        note: why the run is invalid (step 0 is not the undefended model's, no weight changed), or "".
    """

    judgement: Judgement
    reason: StopReason
    evaluations: list[Evaluation]
    steps: int
    train_seconds: float
    trained: int
    note: str = ""


def run_attack(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    text: TextBlocks,
    attack: Attack,
    *,
    reference_perplexity: float | None = None,
    scales: Sequence[Edit] = (),
    progress: Callable[[Evaluation], None] | None = None,
) -> AttackResult:
    """Fine-tune `model` in place and say how far it got.

    Args:
        model: a causal language model; it is changed.
        tokenizer: the model's.
        task: what is trained and scored.
        text: general text.
        attack: how.
        reference_perplexity: of the undefended model on ``text.measure``; a defended model that differs by more than
            2 % at step 0 is a broken attack, and the result is `invalid`, never `held`. A rewriting that changes the
            function by design is judged by the undefended model's perplexity instead.
        scales: channel scales for an attack with a rate per channel.
        progress: called after every evaluation.
    """
    import torch

    recipe = attack.recipe
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(recipe.seed)
        samples = encode_completions(task.samples, tokenizer)
        if attack.freeze is not None:
            share = gradient_share(attack.freeze)
            if share is None:
                _freeze(model, attack.freeze)
            else:
                freeze_by_gradient(model, samples, share, batch_size=recipe.batch_size, seed=recipe.seed)
        if attack.adapter is not None:
            model = add_adapter(model, attack.adapter)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        trainer = make_trainer(model, recipe, samples, _general_batch(text))
        if scales:
            from specdef.attacks.channel_rates import scale_updates

            scale_updates(getattr(trainer.optimizer, "optimizer", trainer.optimizer), model, scales)

        def evaluate(current: Any, step: int, loss: float | None) -> Evaluation:
            return Evaluation(step, task.metric(current, tokenizer), perplexity(current, text.measure), loss)

        lossy = attack.rewrite is not None and attack.rewrite.lossy
        base, checked = (reference_perplexity, None) if lossy else (None, reference_perplexity)
        decide = partial(_decide, task=task, attack=attack, reference=checked, base=base)
        run = train(trainer, evaluate, decide, progress=progress)
    note = _step_zero_fault(run.evaluations[0], checked, task) or _stillness(run)
    judgement = classify_outcome(run.evaluations, target=task.target, utility_factor=attack.utility_factor, base=base)
    if note:
        judgement = Judgement(Outcome.INVALID, None, run.evaluations[0], None, False)
    return AttackResult(judgement, run.reason, run.evaluations, run.steps, run.train_seconds, trained, note)


def _decide(
    evaluations: Sequence[Evaluation], *, task: Task, attack: Attack, reference: float | None, base: float | None
) -> StopReason | None:
    start = evaluations[0]
    if len(evaluations) == 1 and (_changed(start.utility, reference) or start.score >= task.target):
        return StopReason.INVALID
    return should_stop(
        evaluations,
        target=task.target,
        utility_factor=attack.utility_factor,
        early_stop=attack.stop == "paper",
        base=base,
    )


def _changed(found: float, reference: float | None) -> bool:
    if not math.isfinite(found):
        return True
    return reference is not None and abs(found - reference) > STEP_ZERO_TOLERANCE * reference


def _step_zero_fault(start: Evaluation, reference: float | None, task: Task) -> str:
    if _changed(start.utility, reference):
        wanted = "a finite number" if reference is None else f"{reference:.4g}, as the undefended model's"
        return f"step 0: perplexity is {start.utility:.4g}, not {wanted}; the attack changed the function"
    if start.score >= task.target:
        return f"step 0: the score is {start.score:.3g} already, the target {task.target:g}: nothing to learn"
    return ""


def _stillness(run: TrainingRun) -> str:
    """A run that changed no weight says nothing about a defence: an optimizer that does not step looks like a lock."""
    if run.moved or not run.steps:
        return ""
    return (
        f"{run.steps} steps changed no weight: the learning rate is below what their precision resolves, or the "
        "optimizer does not step"
    )


def _freeze(model: nn.Module, pattern: str) -> None:
    frozen = 0
    for name, parameter in model.named_parameters():
        if re.search(pattern, name):
            parameter.requires_grad_(False)
            frozen += 1
    if not frozen:
        raise SpecdefError(f"`freeze` must match a parameter's name; {pattern!r} matches none.")


def _general_batch(text: TextBlocks) -> Batch:
    import torch

    return text.train, text.train, torch.ones_like(text.train)
