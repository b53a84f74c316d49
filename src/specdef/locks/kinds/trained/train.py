"""Algorithm 1 of the workshop paper: gradient steps that raise singular values while the function is held."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from specdef.linalg.matrix import matrix_shape
from specdef.linalg.svd import top_k_svd, top_k_values
from specdef.locks.kinds.trained.metric import metrics
from specdef.locks.kinds.trained.options import TrainedOptions
from specdef.models.base import Batch, LoadedModel
from specdef.tasks.utility import UtilityData
from specdef.training.batches import batches

PATIENCE = 3
"""Evaluations in a row outside the utility budget that end a run: fewer may be made good by what holds the function."""
ABOVE = 1.005
"""Times what is wished, a matrix is raised no more: rounding to a narrow dtype may take a little of it."""
METRIC_ROWS = 2048
"""Rows that the metric is measured on, at most."""


@dataclass(frozen=True)
class Raised:
    """A matrix to raise.

    Attributes:
        layer: whose weight it is: linear, transformers ``Conv1D`` or a convolution.
        transposed: the weight is held as [in, out].
        dtype: it is stored in, in which every evaluation sees it.
    """

    layer: nn.Module
    transposed: bool
    dtype: torch.dtype

    @property
    def weight(self) -> nn.Parameter:
        """The parameter that is trained."""
        found = self.layer.weight
        assert isinstance(found, nn.Parameter)
        return found

    def as_matrix(self, weight: Tensor) -> Tensor:
        """A tensor of the weight's shape as [out, in]."""
        return weight.T if self.transposed else weight.reshape(matrix_shape(weight.shape))

    def as_weight(self, matrix: Tensor) -> Tensor:
        """A matrix [out, in] in the weight's shape."""
        return matrix.T if self.transposed else matrix.reshape(self.weight.shape)

    def rounded(self) -> Tensor:
        """The weight as it would be stored, in float32."""
        return self.weight.detach().to(self.dtype).float().clone()


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
    return float(top_k_svd(weight.detach().reshape(matrix_shape(weight.shape)), 1).s[0])


def train(loaded: LoadedModel, raised: Mapping[str, Raised], data: UtilityData, options: TrainedOptions) -> Outcome:
    """Raise the leading singular values of some weights, until sigma_1 is as wished or utility leaves its budget.

    Math: the weights descend alpha * retain - (1 - alpha) * mean over matrices and i <= k of sigma_i, each part in the
    metric of its layer (see `metrics`), because plain steps would first of all raise what a layer does to the data. The
    raising part has length lr * sigma_1 * sqrt(k), which is what (1 - alpha) and the mean come to; the other is alpha
    times the metric's own step, which undoes a small change at once, and never longer than the raising part. A matrix
    whose sigma_1 is as wished is raised no more. The model is in evaluation mode, so that the function that is held is
    the one that is published.

    Args:
        loaded: the model in float32; no other weight of it changes.
        raised: name -> matrix.
        data: general rows to hold the function on, and to measure utility on.
        options: checked.
    """
    run = _Run(loaded, raised, data, options)
    ended = run.train()
    _write(raised, run.kept)
    return Outcome(run.kept_step, run.before, run.after, (run.start, run.now), ended)


class _Run:
    """One training run, and the last state within its budget."""

    def __init__(
        self, loaded: LoadedModel, raised: Mapping[str, Raised], data: UtilityData, options: TrainedOptions
    ) -> None:
        assert data.retained is not None
        self.loaded, self.raised, self.data, self.options = loaded, raised, data, options
        self.model = loaded.model.eval().requires_grad_(False)
        self.reference = None if options.retain == "loss" else copy.deepcopy(self.model)
        for one in raised.values():
            one.weight.requires_grad_(True)
        self.rows: Iterator[Batch] = batches(data.retained, options.batch_size, options.seed, loaded.kind)
        few = range(0, min(METRIC_ROWS, len(data.retained[0])), options.batch_size)
        seen = (loaded.kind.batch(data.retained, range(at, min(at + options.batch_size, few.stop))) for at in few)
        self.metric = metrics(loaded, {name: one.layer for name, one in raised.items()}, seen, seed=options.seed)
        self.before = {name: sigma_1(one.weight) for name, one in raised.items()}
        self.start = self.now = data.measure(self.model)
        self.after, self.kept, self.kept_step = self.before, self._state(), 0

    def train(self) -> str:
        """Step until sigma_1 is as wished within the budget, or it cannot be; returns which."""
        options, outside = self.options, 0
        for step in range(1, options.steps + 1):
            finite, reached = self._step()
            if not finite:
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

    def _step(self) -> tuple[bool, bool]:
        """One step of every matrix; returns whether all is finite, and whether all were as wished before it."""
        weights = [one.weight for one in self.raised.values()]
        values = [top_k_values(one.as_matrix(one.weight), self.options.rank) for one in self.raised.values()]
        rising = torch.autograd.grad(torch.stack([each.sum() for each in values]).sum(), weights)
        holding = torch.autograd.grad(self._retained(next(self.rows)), weights)
        if not all(bool(torch.isfinite(each).all()) for each in holding):
            return False, False
        reached = True
        with torch.no_grad():
            for (name, one), tops, up, back in zip(self.raised.items(), values, rising, holding, strict=True):
                metric, wished = self.metric[name], ABOVE * self.options.multiplier * self.before[name]
                rise = metric.direction(one.as_matrix(up))
                rise *= self.options.lr * tops[0] * math.sqrt(self.options.rank) / rise.norm()
                hold = self.options.retain_weight * metric.direction(one.as_matrix(back))
                hold *= (rise.norm() / hold.norm().clamp_min(torch.finfo(hold.dtype).tiny)).clamp(max=1)
                done = bool(tops[0] >= wished)
                one.weight.add_(one.as_weight(-hold if done else rise - hold))
                reached &= done
        return True, reached

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
        """Measure the model as it would be stored; a state within the budget is kept.

        Returns:
            Whether utility is within its budget, and how often its start the least raised sigma_1 is.
        """
        rounded = self._state()
        with _state_of(self.raised, rounded):
            utility = self.data.measure(self.model)
            after = {name: sigma_1(one.weight) for name, one in self.raised.items()}
        good = math.isfinite(utility) and self.data.utility.within(self.start, utility, self.options.utility_factor)
        if good:
            self.kept, self.kept_step, self.now, self.after = rounded, step, utility, after
        return good, min(value / self.before[name] for name, value in after.items())

    def _state(self) -> dict[str, Tensor]:
        return {name: one.rounded() for name, one in self.raised.items()}


@contextmanager
def _state_of(raised: Mapping[str, Raised], state: Mapping[str, Tensor]) -> Iterator[None]:
    """The weights with other values, their own again afterwards."""
    held = {name: one.weight.detach().clone() for name, one in raised.items()}
    _write(raised, state)
    try:
        yield
    finally:
        _write(raised, held)


def _write(raised: Mapping[str, Raised], state: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in state.items():
            raised[name].weight.copy_(value)
