"""What a lock does to the two factors of the first-order bound: L, and |theta_0 - theta*|^2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from experiments.toy import curvature
from experiments.toy.deformations import LOCKS, Lock, locked, map_of
from experiments.toy.network import initial
from experiments.toy.sweep import SEEDS
from experiments.toy.training import Data, Runs, train


def measure(plans: dict[str, Any], data: Data) -> list[dict[str, Any]]:
    """One row per lock; means over the seeds (geometric for L, distances and products).

    theta* is where GD and Adam end in the locked coordinates at their best rate of any, and A theta*: the network that
    Adam finds without the lock, in locked coordinates.
    """
    rows = []
    plain = initial(SEEDS)
    ends: dict[str, Tensor] = {}
    for lock in LOCKS:
        start = locked(lock, plain)
        smooth = torch.linalg.eigvalsh(curvature.hessian_at(lock.stack, start, *data)).abs().amax(1)
        row: dict[str, Any] = {"lock": lock.label, "multiplier": lock.multiplier, "L": _mean(smooth)}
        for optimizer in ("GD", "Adam"):
            cell = plans[optimizer]["locks"][lock.label]["best"]
            runs = _again(lock, optimizer, start, cell["settings"], data)
            squared = (runs.theta - start).square().sum(1)
            if optimizer == "Adam":
                ends[lock.label] = runs.theta
            row[optimizer] = {
                "lr": cell["settings"]["lr"],
                "loss": runs.final.mean().item(),
                "distance_squared": _mean(squared),
                "product": _mean(smooth * squared),
            }
        image = (map_of(lock, plain) @ ends[lock.base.label][..., None]).squeeze(-1)
        squared = (image - start).square().sum(1)
        row["image_of_unlocked"] = {"distance_squared": _mean(squared), "product": _mean(smooth * squared)}
        rows.append(row)
        print(row, flush=True)
    return rows


def _again(lock: Lock, optimizer: str, start: Tensor, cell: dict[str, float], data: Data) -> Runs:
    settings = {name: torch.full((len(start),), value, dtype=start.dtype) for name, value in cell.items()}
    return train(lock.stack, optimizer, start, settings, data, steps=1000, every=100)


def _mean(values: Tensor) -> float:
    return float(values.log().mean().exp())
