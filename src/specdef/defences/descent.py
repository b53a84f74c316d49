"""The loop that minimises a defence's objective: it keeps the last good state, and goes on after a kill."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.defences.base import Applied, Given
from specdef.defences.objective import STAGE, Objective, Rows, TrainingOptions
from specdef.models.base import Batch, ModelKind
from specdef.training.batches import drawn
from specdef.training.loop import scheduled
from specdef.training.optimizers import build_optimizer
from specdef.training.outcome import Evaluation

if TYPE_CHECKING:
    import torch

    State = dict[str, torch.Tensor]


PATIENCE = 3
"""Evaluations in a row outside the utility budget that end a run: fewer may be made good by the rows to keep."""


def descend(objective: Objective, given: Given, options: TrainingOptions) -> Applied:
    """Minimise an objective, and leave the model in its last evaluated state within the utility budget.

    Every draw of a step depends on the seed and the step alone, so that a run that was killed and goes on makes the
    same weights, to the bit, as one that was not.

    Args:
        objective: made for ``given.loaded``.
        given: the model, its data and where an unfinished run is kept.
        options: steps, rate, budget.

    Returns:
        The steps that were kept, every evaluation, and why training ended.
    """
    run = _Run(objective, given, options)
    run.resume()
    ended = run.train()
    _restore(objective.model, run.kept)
    objective.finish()
    return Applied({STAGE: run.kept_step}, {STAGE: run.evaluations}, ended=ended)


class _Run:
    """One training run, between two evaluations."""

    def __init__(self, objective: Objective, given: Given, options: TrainingOptions) -> None:
        assert given.data_rows is not None
        self.objective, self.given, self.options = objective, given, options
        recipe = options.recipe(given.seed)
        self.optimizer = build_optimizer(
            recipe.optimizer, objective.model, lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        self.schedule = scheduled(self.optimizer, recipe)
        self.recipe, self.done = recipe, 0
        kind, rows = given.loaded.kind, given.data_rows
        self.forget = _Drawn(rows.forget, recipe.batch_size, given.seed, kind)
        self.retain = _Drawn(rows.retain, recipe.batch_size, given.seed + 1, kind)
        self.evaluations: list[Evaluation] = []
        self.kept_step, self.kept = 0, _state(objective.model)

    def train(self) -> str:
        """Step until the budget of steps or of utility is spent, or a number is not finite; returns the reason."""
        outside = 0
        if not self.evaluations and self.given.start is not None:
            self.evaluations.append(self.given.start)
            self.given.progress(STAGE, self.given.start)
        elif not self.evaluations:
            self._evaluate(None)
        while self.done < self.options.steps:
            loss = self._step()
            if not math.isfinite(loss):
                return f"the loss was not finite at step {self.done}; the state after {self.kept_step} steps is kept"
            if self.done % self.options.eval_every and self.done < self.options.steps:
                continue
            outside = 0 if self._evaluate(loss) else outside + 1
            if outside == PATIENCE or not math.isfinite(self.evaluations[-1].utility):
                return f"utility stayed outside its budget; the state after {self.kept_step} steps is kept"
        if not outside:
            return "all steps done"
        return f"all steps done; the state after {self.kept_step} steps is the last within the utility budget"

    def resume(self) -> None:
        """Go on where a killed run of the same kind stood."""
        if self.given.unfinished is None or (state := self.given.unfinished.load()) is None:
            return
        _restore(self.objective.model, state["weights"])
        self.objective.go_on(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.evaluations = [Evaluation(*row) for row in state["evaluations"]]
        self.done = self.kept_step = self.evaluations[-1].step
        self.kept = _state(self.objective.model)
        self.forget.skip(self.done)
        self.retain.skip(self.done)
        self.given.progress("resumed", self.evaluations[-1])

    def _step(self) -> float:
        import torch

        model = self.objective.model
        model.train()
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed((self.given.seed << 20) + self.done)
        loss = self.objective.backward(self.done, next(self.forget), next(self.retain))
        if self.recipe.max_grad_norm is not None:
            trained = [p for p in model.parameters() if p.requires_grad]
            norm = torch.nn.utils.clip_grad_norm_(trained, self.recipe.max_grad_norm)
            loss = loss if bool(torch.isfinite(norm)) else math.nan
        self.done += 1
        if math.isfinite(loss):
            self.optimizer.step()
            self.schedule.step()
        return loss

    def _evaluate(self, loss: float | None) -> bool:
        """Measure the model; a state within the budget is kept, in memory and on disk. Returns whether it is."""
        model, given = self.objective.model, self.given
        model.eval()
        score = float(given.measures[0].metric(model, given.loaded.processor)) if given.measures else 0.0
        point = Evaluation(self.done, score, given.utility.measure(model, given.data), loss)
        self.evaluations.append(point)
        given.progress(STAGE, point)
        budget = self.options.utility_factor
        good = math.isfinite(point.utility) and given.utility.within(self.evaluations[0].utility, point.utility, budget)
        if good:
            self.kept_step, self.kept = self.done, _state(model)
            if given.unfinished is not None and self.done:
                given.unfinished.save(self._content())
        return good

    def _content(self) -> dict[str, Any]:
        rows = [(point.step, point.score, point.utility, point.loss) for point in self.evaluations]
        return {
            "weights": self.kept,
            "objective": self.objective.state(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "evaluations": rows,
        }


@dataclass
class _Drawn:
    """Endless batches of some rows."""

    rows: Batch
    size: int
    seed: int
    kind: ModelKind

    def __post_init__(self) -> None:
        self._order = drawn(len(self.rows[0]), self.size, self.seed)

    def skip(self, count: int) -> None:
        for _ in range(count):
            next(self._order)

    def __next__(self) -> Rows:
        chosen = next(self._order)
        return Rows(self.kind.batch(self.rows, chosen), tuple(chosen))


def _state(model: Any) -> State:
    """What training changes: parameters, and what a BatchNorm counts on the way."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return {name: value.detach().clone() for name, value in [*trained, *model.named_buffers()]}


def _restore(model: Any, state: State) -> None:
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in state.items():
        named[name].data.copy_(value)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model without dropout and without gradients, as it was afterwards."""
    import torch

    trains = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(trains)
