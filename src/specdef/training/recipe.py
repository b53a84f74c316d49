"""How a model is fine-tuned, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from specdef.errors import SpecdefError
from specdef.training.optimizers import check_option, optimizer_spec

Precision = Literal["fp32", "bf16", "bf16-master"]
"""fp32; bf16: weights and optimizer in bfloat16; bf16-master: bfloat16 arithmetic over float32 weights."""
Schedule = Literal["linear", "cosine", "constant"]
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class Recipe:
    """How a model is fine-tuned: data, never code. The defaults are the paper's (section 5), but for `lr`.

    Attributes:
        optimizer: a key of `OPTIMIZERS`.
        lr: learning rate at the top of the schedule.
        steps: optimizer steps.
        batch_size: task samples per forward pass.
        gradient_accumulation_steps: forward passes per optimizer step.
        warmup: share of the steps over which the learning rate rises from 0.
        schedule: how it falls afterwards.
        max_grad_norm: largest global gradient norm; None leaves gradients alone, as lbfgs always does.
        clip_each: hold every tensor's gradient norm to `max_grad_norm` by itself, so that none shrinks another's.
        eps: of the optimizer's denominator; None keeps its default.
        optimizer_options: what is changed of the optimizer's other settings, such as ``{"betas": (0.9, 0.95)}``; kept
            as (name, value), sorted by name.
        weight_decay: decoupled.
        precision: of weights and arithmetic.
        retain_weight: weight of general text in the loss, as an attacker who wants a usable model mixes it in.
        eval_every: steps between evaluations.
        seed: decides the order of samples and every other draw.
    """

    optimizer: str = "adamw"
    lr: float = 1e-4
    steps: int = 60
    batch_size: int = 8
    gradient_accumulation_steps: int = 1
    warmup: float = 0.1
    schedule: Schedule = "linear"
    max_grad_norm: float | None = 1.0
    weight_decay: float = 0.01
    precision: Precision = "fp32"
    retain_weight: float = 0.25
    eval_every: int = 10
    seed: int = 0
    clip_each: bool = False
    eps: float | None = None
    optimizer_options: dict[str, Any] | tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        optimizer_spec(self.optimizer)
        self._keep_options()
        _require(math.isfinite(self.lr) and self.lr > 0, "lr", "be a number above 0", self.lr)
        for name in ("steps", "batch_size", "gradient_accumulation_steps", "eval_every"):
            _require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        _require(0 <= self.warmup < 1, "warmup", "be at least 0 and below 1", self.warmup)
        enough = math.ceil(self.warmup * self.steps) < self.steps
        _require(enough, "steps", "be more than the warm-up takes, whose first step has learning rate 0", self.steps)
        _require(
            math.isfinite(self.weight_decay) and self.weight_decay >= 0,
            "weight_decay",
            "be 0 or more",
            self.weight_decay,
        )
        _require(0 <= self.seed < 2**32, "seed", "be at least 0 and below 2^32", self.seed)
        _require(
            self.max_grad_norm is None or 0 < self.max_grad_norm < math.inf,
            "max_grad_norm",
            "be above 0, or none",
            self.max_grad_norm,
        )
        _require(
            not self.clip_each or self.max_grad_norm is not None, "clip_each", "be given with a gradient norm", True
        )
        _require(self.eps is None or 0 < self.eps < math.inf, "eps", "be above 0, or none", self.eps)
        _require(0 <= self.retain_weight < 1, "retain_weight", "be at least 0 and below 1", self.retain_weight)
        _require(self.schedule in SCHEDULES, "schedule", f"be one of {', '.join(SCHEDULES)}", self.schedule)
        known = ("fp32", "bf16", "bf16-master")
        _require(self.precision in known, "precision", f"be one of {', '.join(known)}", self.precision)

    def _keep_options(self) -> None:
        """One form for equal options, whatever form they were given in."""
        given = sorted(dict(self.optimizer_options).items())
        kept = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in given)
        for name, value in kept:
            check_option(self.optimizer, name, value)
        object.__setattr__(self, "optimizer_options", kept)


def _require(holds: bool, name: str, contract: str, value: object) -> None:
    if not holds:
        raise SpecdefError(f"`{name}` must {contract}; got {value!r}.")
