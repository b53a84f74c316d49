"""Algorithm 1 of the workshop paper: gradient steps that raise singular values while the function is held."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from specdef.linalg.matrix import matrix_shape
from specdef.linalg.svd import top_k_svd, top_k_values
from specdef.locks.kinds.trained.options import TrainedOptions
from specdef.models.base import Batch, LoadedModel
from specdef.tasks.utility import UtilityData
from specdef.training.batches import batches
from specdef.training.optimizers import build_optimizer

PATIENCE = 3
"""Evaluations in a row outside the utility budget that end a run: fewer may be made good by what holds the function."""
ABOVE = 1.005
"""Times what is wished, a matrix is raised no more: rounding to a narrow dtype may take a little of it."""


@dataclass(frozen=True)
class Outcome:
    """What training came to; the model is left in the state that is kept, rounded as it will be stored.

    Attributes:
        steps: done up to the state that is kept; 0 where none is.
        before: matrix -> sigma_1 of the original.
        after: matrix -> sigma_1 of the state that is kept.
        utility: before and after.
        ended: why training ended, in words.
    """

    steps: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    utility: tuple[float, float]
    ended: str

    @property
    def multiplier(self) -> float:
        """How often its start sigma_1 of every matrix is now, at least."""
        return min(after / self.before[name] for name, after in self.after.items())


def sigma_1(weight: Tensor) -> float:
    """Largest singular value of a weight; a convolution's as a matrix [out, in * height * width]."""
    return float(top_k_svd(_as_matrix(weight.detach()), 1).s[0])


def train(
    loaded: LoadedModel,
    parameters: Mapping[str, torch.nn.Parameter],
    dtypes: Mapping[str, torch.dtype],
    data: UtilityData,
    options: TrainedOptions,
) -> Outcome:
    """Raise the leading singular values of some parameters, until sigma_1 is as wished or utility leaves its budget.

    Math: the model's weights descend alpha * retain - (1 - alpha) * mean over matrices and i <= k of sigma_i(W). A
    matrix whose sigma_1 is as wished adds nothing to the mean, but its share stays, so that the others go on as before.
    The step is AdamW's; the model is in evaluation mode, so that what is held is the function that is published.

    Args:
        loaded: the model in float32; its parameters with ``requires_grad`` are trained.
        parameters: name -> matrix that is raised, a parameter of the model.
        dtypes: parameter of the model -> dtype it is stored in, in which every evaluation sees it.
        data: general rows to hold the function on, and to measure utility on.
        options: checked.
    """
    run = _Run(loaded, parameters, dtypes, data, options)
    ended = run.train()
    _restore(loaded.model, run.kept)
    return Outcome(run.kept_step, run.before, run.after, (run.start, run.now), ended)


class _Run:
    """One training run, and the last state within its budget."""

    def __init__(
        self,
        loaded: LoadedModel,
        parameters: Mapping[str, torch.nn.Parameter],
        dtypes: Mapping[str, torch.dtype],
        data: UtilityData,
        options: TrainedOptions,
    ) -> None:
        assert data.retained is not None
        self.loaded, self.parameters, self.dtypes, self.data, self.options = loaded, parameters, dtypes, data, options
        self.model = loaded.model.eval()
        self.reference = None if options.retain == "loss" else copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = build_optimizer("adamw", self.model, lr=options.lr, weight_decay=0.0)
        self.rows: Iterator[Batch] = batches(data.retained, options.batch_size, options.seed, loaded.kind)
        self.before = {name: sigma_1(weight) for name, weight in parameters.items()}
        self.start = self.now = data.measure(self.model)
        self.after, self.kept, self.kept_step = self.before, self._state(), 0

    def train(self) -> str:
        """Step until sigma_1 is as wished within the budget, or it cannot be; returns which."""
        options, outside = self.options, 0
        for step in range(1, options.steps + 1):
            loss, reached = self._step()
            if not math.isfinite(loss):
                return f"a gradient was not finite at step {step}"
            if step % options.eval_every and step < options.steps and not (reached and not outside):
                continue
            good, lowest = self._evaluate(step)
            outside = 0 if good else outside + 1
            if good and lowest >= options.multiplier:
                return f"sigma_1 of every matrix is {options.multiplier:g} times its start"
            if outside == PATIENCE:
                return f"{self.data.utility.name} left its budget after step {self.kept_step}"
        return f"all {options.steps} steps are done"

    def _step(self) -> tuple[float, bool]:
        """One optimizer step; returns the loss, and whether every matrix was as wished before it."""
        self.optimizer.zero_grad(set_to_none=True)
        share, sums = 1 - self.options.retain_weight, []
        for name, weight in self.parameters.items():
            values = top_k_values(_as_matrix(weight), self.options.rank)
            if values[0] < ABOVE * self.options.multiplier * self.before[name]:
                sums.append(values.sum())
        loss = self.options.retain_weight * self._retained(next(self.rows))
        for one in sums:
            loss = loss - share * one / (self.options.rank * len(self.parameters))
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        if not (torch.isfinite(norm) and torch.isfinite(loss)):
            return math.nan, False
        self.optimizer.step()
        return float(loss.detach()), not sums

    def _retained(self, batch: Batch) -> Tensor:
        """What holds the function, on some rows: the task's loss, KL(original || model) in nats, or both."""
        kind, retain = self.loaded.kind, self.options.retain
        logits, targets = kind.predictions(self.model, batch)
        found: list[Tensor] = []
        if retain != "kl":
            found.append(torch.nn.functional.cross_entropy(logits, targets))
        if self.reference is not None:
            with torch.no_grad():
                original = torch.log_softmax(kind.predictions(self.reference, batch)[0], dim=-1)
            own = torch.log_softmax(logits, dim=-1)
            found.append(torch.nn.functional.kl_div(own, original, log_target=True, reduction="batchmean"))
        return torch.stack(found).sum()

    def _evaluate(self, step: int) -> tuple[bool, float]:
        """Measure the model as it would be stored; a state within the budget that is more of a lock is kept.

        Returns:
            Whether utility is within its budget, and how often its start the least raised sigma_1 is.
        """
        rounded = self._state()
        with _state_of(self.model, rounded):
            utility = self.data.measure(self.model)
            after = {name: sigma_1(weight) for name, weight in self.parameters.items()}
        good = math.isfinite(utility) and self.data.utility.within(self.start, utility, self.options.utility_factor)
        if good:
            self.kept, self.kept_step, self.now, self.after = rounded, step, utility, after
        return good, min(value / self.before[name] for name, value in after.items())

    def _state(self) -> dict[str, Tensor]:
        """Every trained parameter, rounded to the dtype it is stored in."""
        named = self.model.named_parameters()
        return {n: p.detach().to(self.dtypes[n]).float().clone() for n, p in named if p.requires_grad}


def _as_matrix(weight: Tensor) -> Tensor:
    return weight.reshape(matrix_shape(weight.shape))


@contextmanager
def _state_of(model: Any, state: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with other values, its own again afterwards."""
    held = {name: p.detach().clone() for name, p in model.named_parameters() if name in state}
    _restore(model, state)
    try:
        yield
    finally:
        _restore(model, held)


def _restore(model: Any, state: Mapping[str, Tensor]) -> None:
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in state.items():
            named[name].copy_(value)


def unfrozen(model: Any, trained: Sequence[str]) -> None:
    """Train the parameters of these names and no others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
