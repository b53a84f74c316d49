"""Train a batch of networks; what left the finite numbers stays where it was and counts as diverged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.toy import curvature
from experiments.toy.network import Stack, run
from experiments.toy.optimizers import STEPS, Point, Settings, State

Data = tuple[Tensor, Tensor]
"""Points [samples, 2] and labels."""
CHUNK = 64
TARGET = 0.1
"""Loss that a run has to reach to count steps; the start is near ln 2."""
WORST = 10.0
"""Losses are cut off here in curves."""


@dataclass(frozen=True)
class Runs:
    """One row per network."""

    theta: Tensor
    """Where the run ended, or stood before it diverged."""
    loss: Tensor
    """Lowest loss on the way: an attacker keeps the best checkpoint."""
    accuracy: Tensor
    """At the lowest loss."""
    final: Tensor
    """Loss after the last step."""
    diverged: Tensor
    reached: Tensor
    """First step at which the loss was at most TARGET; inf if never."""
    curve: Tensor
    """Loss at every `every`-th step [batch, points]."""


def train(
    stack: Stack,
    optimizer: str,
    theta: Tensor,
    settings: Settings,
    data: Data,
    *,
    steps: int,
    every: int,
) -> Runs:
    """Train every row of theta with its own row of settings, full batch."""
    parts = []
    for start in range(0, len(theta), CHUNK):
        rows = slice(start, start + CHUNK)
        own = {name: value[rows] for name, value in settings.items()}
        parts.append(_train(stack, optimizer, theta[rows], own, data, steps, every))
    return Runs(*(torch.cat([getattr(part, name) for part in parts]) for name in Runs.__dataclass_fields__))


def _train(stack: Stack, optimizer: str, theta: Tensor, settings: Settings, data: Data, steps: int, every: int) -> Runs:
    x, y = data
    state: State = {}
    alive = torch.ones(len(theta), dtype=torch.bool)
    reached = torch.full((len(theta),), torch.inf, dtype=torch.float64)
    curve = []
    best = torch.full_like(reached, torch.inf)
    accuracy = torch.zeros_like(reached)
    for number in range(steps + 1):
        signals = run(stack, theta, x)
        loss = curvature.loss_of(signals.logits, y)
        alive &= loss.isfinite() & (loss < 1e6)
        reached = torch.where((loss <= TARGET) & alive & reached.isinf(), float(number), reached)
        better = alive & (loss < best)
        best = torch.where(better, loss, best)
        accuracy = torch.where(better, ((signals.logits > 0) == (y > 0.5)).double().mean(1), accuracy)
        if number % every == 0:
            curve.append(loss)
        if number == steps:
            break
        with torch.no_grad():
            new = STEPS[optimizer](Point(stack, theta, signals, *curvature.residuals(signals, y)), settings, state)
        alive &= new.isfinite().all(1) & (new.abs().amax(1) < 1e60)
        theta = torch.where(alive[:, None], new, theta)
        for name, value in state.items():
            if value.ndim == 2:
                state[name] = torch.where(alive[:, None], value, torch.zeros_like(value))
    return Runs(theta, best, accuracy, loss, ~alive, reached, torch.stack(curve, dim=1))
