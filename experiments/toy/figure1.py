"""Figure 1: largest Hessian eigenvalue, and GD's iterations to a fixed loss, against a weight's sigma_1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, hessian, vmap

from experiments.toy.architectures import ARCHITECTURES, Architecture

SIGMAS = (1.0, 3.0, 10.0, 30.0, 50.0)
SEEDS = range(3)
STEPS = 300
FACTORS = (0.25, 1.0, 4.0, 16.0)
"""Step sizes tried, times 1 / L; 1 is the theory's."""


def measure() -> dict[str, Any]:
    """Per architecture: sigma_1(H) at the start and steps to the target, seeds in the last place.

    The target is the paper's: per seed, the worst of the lowest losses that the runs at 1 / L reach.
    """
    found: dict[str, Any] = {}
    for name, architecture in ARCHITECTURES.items():
        data = [architecture.data(seed) for seed in SEEDS]
        starts = {(s, i): architecture.initial(s, i) for s in SIGMAS for i in SEEDS}
        smooth = {(s, i): sigma_1(architecture, start, *data[i]) for (s, i), start in starts.items()}
        keys = [(factor, s, i) for factor in FACTORS for s in SIGMAS for i in SEEDS]
        losses = _descend(
            architecture,
            torch.stack([starts[s, i] for _, s, i in keys]).float(),
            torch.tensor([factor / smooth[s, i] for factor, s, i in keys]).float(),
            torch.stack([data[i][0] for *_, i in keys]).float(),
            torch.stack([data[i][1] for *_, i in keys]).float(),
        )
        curves = dict(zip(keys, losses, strict=True))
        targets = [max(float(curves[1.0, s, i].min()) for s in SIGMAS) for i in SEEDS]
        rows = []
        for s in SIGMAS:
            steps = {f: [_first(curves[f, s, i], targets[i]) for i in SEEDS] for f in FACTORS}
            best = [min(steps[f][i] for f in FACTORS) for i in SEEDS]
            rows.append(
                {"sigma_1_w": s, "sigma_1_h": [smooth[s, i] for i in SEEDS], "theory": steps[1.0], "best": best}
            )
        found[name] = {"target": targets, "rows": rows}
        print(name, targets, *rows, sep="\n", flush=True)
    return found


def sigma_1(architecture: Architecture, theta: Tensor, x: Tensor, y: Tensor) -> float:
    """Largest absolute eigenvalue of the dense loss Hessian."""
    matrix = hessian(lambda t: architecture.loss(t, x, y))(theta)
    return float(torch.linalg.eigvalsh(matrix).abs().max())


def _descend(architecture: Architecture, theta: Tensor, lr: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Loss of every run at every step [runs, STEPS + 1]; inf from where a run diverged."""
    step = vmap(grad_and_value(architecture.loss))
    losses = []
    for _ in range(STEPS + 1):
        g, loss = step(theta, x, y)
        losses.append(loss.nan_to_num(nan=torch.inf))
        theta = theta - lr[:, None] * g
    return torch.stack(losses, dim=1)


def _first(losses: Tensor, target: float) -> int:
    """First step at or below the target; STEPS + 1 if none."""
    below = (losses <= target * (1 + 1e-6)).nonzero()
    return int(below[0]) if len(below) else STEPS + 1
