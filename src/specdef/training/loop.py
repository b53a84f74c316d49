"""The one training loop. Devices, processes and precision come from its engine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from specdef.core.processes import summed
from specdef.errors import SpecdefError
from specdef.models.base import Batch, LoadedModel, ModelKind
from specdef.training.batches import Share, second_derivatives, shares
from specdef.training.engines import Engine, engine_of, held
from specdef.training.optimizers import OptimizerSpec, build_optimizer, optimizer_spec
from specdef.training.outcome import Evaluation, StopReason
from specdef.training.recipe import SCHEDULES, Recipe

Drawn = Sequence[tuple[Share, Share | None]]
"""The batches of one step: of the task's rows, and of the general ones where they are mixed in."""


@dataclass
class Trainer:
    """One model, its optimizer and its batches; `step` does one optimizer step."""

    model: Any
    kind: ModelKind
    optimizer: Any
    schedule: Any
    engine: Engine
    recipe: Recipe
    spec: OptimizerSpec
    task: Iterator[Share]
    general: Iterator[Share] | None
    done: int = 0

    def step(self) -> float:
        """Train one step; returns the loss on the task's samples."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        drawn = [
            (next(self.task), None if self.general is None else next(self.general))
            for _ in range(self.recipe.gradient_accumulation_steps)
        ]
        if self.spec.closure:
            loss = self._closure_step(drawn)
        elif self.spec.curvature_every:
            loss = self._curvature_step(drawn)
        else:
            loss = self._backward(drawn)
            self._clip()
            self.optimizer.step()
        self.schedule.step()
        self.done += 1
        return loss

    def _pieces(self, drawn: Drawn) -> Iterator[tuple[Share, float, float]]:
        """(rows, weight of their loss in the step's, and in what is seen of the task), each a forward pass of its own:
        the task's rows, then the general ones."""
        for task, general in drawn:
            share = 0.0 if general is None else self.recipe.retain_weight
            yield task, (1 - share) / len(drawn), 1 / len(drawn)
            if general is not None:
                yield general, share / len(drawn), 0.0

    def _accumulate(self, drawn: Drawn) -> tuple[float, float]:
        """Add the gradients of a step: (loss on the task's rows, whole loss)."""
        seen = total = 0.0
        pieces = list(self._pieces(drawn))
        for number, (rows, weight, of_task) in enumerate(pieces):
            with self.engine.part(last=number == len(pieces) - 1):
                loss = self.kind.loss(self.engine.model, rows.batch)
                self.engine.backward(loss * (weight * rows.part))
            value = float(loss.detach()) * rows.part if rows.part else 0.0
            total += value * weight
            seen += value * of_task
        return self.engine.total(seen), self.engine.total(total)

    def _backward(self, drawn: Drawn) -> float:
        return self._accumulate(drawn)[0]

    def _clip(self) -> None:
        if self.recipe.max_grad_norm is None:
            return
        if not self.recipe.clip_each:
            self.engine.clip(self.model.parameters(), self.recipe.max_grad_norm)
            return
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                self.engine.clip([parameter], self.recipe.max_grad_norm)

    def _closure_step(self, drawn: Drawn) -> float:
        """The optimizer evaluates the loss itself: value and gradient of one function, so gradients are not clipped."""
        first: list[float] = []

        def closure() -> float:
            self.optimizer.zero_grad(set_to_none=True)
            seen, total = self._accumulate(drawn)
            first.append(seen)
            return total

        self.optimizer.step(closure)
        return first[0]

    def _curvature_step(self, drawn: Drawn) -> float:
        """A step with Hutchinson's estimate z * (H z) of the Hessian's diagonal, z of random signs.

        Gradients come from ``autograd.grad``: ``backward(create_graph=True)`` would leave reference cycles behind.
        """
        import torch

        if self.done % self.spec.curvature_every:
            loss = self._backward(drawn)
            self._clip()
            self.optimizer.step()
            return loss
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        signs = [torch.randint_like(p, 0, 2) * 2 - 1 for p in parameters]
        diagonal = [torch.zeros_like(p) for p in parameters]
        for p in parameters:
            p.grad = torch.zeros_like(p)
        seen = 0.0
        with second_derivatives():
            for rows, weight, of_task in self._pieces(drawn):
                value = self.kind.loss(self.model, rows.batch)
                gradients = torch.autograd.grad(value * (weight * rows.part), parameters, create_graph=True)
                products = torch.autograd.grad(gradients, parameters, grad_outputs=signs)
                for p, d, z, g, hz in zip(parameters, diagonal, signs, gradients, products, strict=True):
                    assert p.grad is not None
                    p.grad += g.detach()
                    d += z * hz
                seen += float(value.detach()) * rows.part * of_task
        self.engine.add_up([p.grad for p in parameters if p.grad is not None])
        self.engine.add_up(diagonal)
        self._clip()
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        inner.step(hessian=diagonal, **({"probes": signs} if self.spec.takes_probes else {}))
        return self.engine.total(seen)


def make_trainer(loaded: LoadedModel, recipe: Recipe, task: Batch, general: Batch | None) -> Trainer:
    """Prepare a model for training.

    Args:
        loaded: its parameters without ``requires_grad`` stay as they are.
        recipe: how to train.
        task: all task samples, encoded.
        general: general data, likewise; None trains on the task alone.

    Raises:
        SpecdefError: nothing is trainable.
    """
    model = loaded.model
    if not any(p.requires_grad for p in model.parameters()):
        raise SpecdefError("`freeze` must leave at least one parameter to train; it freezes all of them.")

    def build(placed: Any) -> Any:
        return build_optimizer(
            recipe.optimizer,
            placed,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            eps=recipe.eps,
            options=tuple(dict(recipe.optimizer_options).items()),
            is_head=loaded.kind.is_head,
        )

    model, engine, optimizer = engine_of(model, recipe, build)
    general_rows = max(1, round(recipe.retain_weight * recipe.batch_size))
    mixes = general is not None and recipe.retain_weight > 0
    return Trainer(
        model=model,
        kind=loaded.kind,
        optimizer=optimizer,
        schedule=scheduled(getattr(optimizer, "optimizer", optimizer), recipe),
        engine=engine,
        recipe=recipe,
        spec=optimizer_spec(recipe.optimizer),
        task=shares(task, recipe.batch_size, recipe.seed, loaded.kind),
        general=shares(general, general_rows, recipe.seed + 1, loaded.kind) if mixes and general is not None else None,
    )


def scheduled(optimizer: Any, recipe: Recipe) -> Any:
    """The learning rate's schedule over a recipe's steps."""
    from transformers import get_scheduler

    return get_scheduler(
        SCHEDULES[recipe.schedule],
        optimizer,
        num_warmup_steps=math.ceil(recipe.warmup * recipe.steps),
        num_training_steps=recipe.steps,
    )


Evaluate = Callable[[Any, int, float | None], Evaluation]
"""(model, step, loss of that step) -> evaluation."""


@dataclass
class TrainingRun:
    """What a training run measured.

    Attributes:
        evaluations: from step 0 on.
        reason: why it ended.
        steps: optimizer steps done.
        train_seconds: time in training steps only.
        moved: some trained weight is no longer what it was, to the bit.
    """

    evaluations: list[Evaluation]
    reason: StopReason
    steps: int
    train_seconds: float
    moved: bool


def train(
    trainer: Trainer,
    evaluate: Evaluate,
    stop: Callable[[Sequence[Evaluation]], StopReason | None],
    *,
    progress: Callable[[Evaluation], None] | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> TrainingRun:
    """Evaluate, then train until a decision, the budget, or weights that are no longer finite.

    A loss that is not finite does not end the run: only weights that are not finite do, since no step can mend them.

    Args:
        trainer: what is trained.
        evaluate: measures the model, at step 0 and then every so many steps.
        stop: from all evaluations so far, why to end; None goes on.
        progress: called after every evaluation.
        on_step: called after every step with the number of steps done and that step's loss.
    """
    evaluations: list[Evaluation] = []
    seconds = 0.0

    def record(step: int, loss: float | None) -> StopReason | None:
        trainer.model.eval()
        evaluations.append(evaluate(trainer.model, step, loss))
        if progress is not None:
            progress(evaluations[-1])
        return stop(evaluations)

    before = weight_checksums(trainer.model)
    reason = record(0, None)
    while reason is None and trainer.done < trainer.recipe.steps:
        started = time.perf_counter()
        loss = trainer.step()
        seconds += time.perf_counter() - started
        if on_step is not None:
            on_step(trainer.done, loss)
        last = trainer.done == trainer.recipe.steps
        dead = not math.isfinite(loss) and not _weights_finite(trainer.model)
        if last or dead or trainer.done % trainer.recipe.eval_every == 0:
            reason = record(trainer.done, loss)
        if dead and reason is None:
            reason = StopReason.DEAD
    moved = summed([weight_checksums(trainer.model) != before]) != [0.0]
    return TrainingRun(evaluations, reason or StopReason.BUDGET, trainer.done, seconds, moved)


def weight_checksums(model: Any) -> list[int]:
    """Per trained parameter, the sum of its numbers' bit patterns: shows that training changed something."""
    import torch

    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    sums = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            own = held(parameter.detach())
            sums.append(int(own.contiguous().view(integers[own.element_size()]).sum()))
    return sums


def _weights_finite(model: Any) -> bool:
    import torch

    return summed([sum(not bool(torch.isfinite(held(p.detach())).all()) for p in model.parameters())]) == [0.0]
