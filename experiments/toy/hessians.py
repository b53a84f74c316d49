"""Dense Hessians before and after the locks: figures 11 and 12."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from experiments.toy import curvature
from experiments.toy.deformations import Lock, fold_scales, locked
from experiments.toy.network import PLAIN, initial
from experiments.toy.sweep import SEEDS
from experiments.toy.training import Data

SHOWN = (Lock("none"), Lock("inject"), Lock("inject", 100.0), Lock("fold", 2.0**7))
TOP_KS = (1, 2, 4, 8)
PLACES = {"hidden 1": (0,), "hidden 2": (1,), "both": (0, 1)}


def matrices(data: Data) -> dict[str, Tensor]:
    """The Hessian of seed 0 under every lock shown."""
    plain = initial(range(1))
    return {lock.label: curvature.hessian_at(lock.stack, locked(lock, plain), *data)[0] for lock in SHOWN}


def variants(data: Data) -> dict[str, dict[str, Tensor]]:
    """Eigenvalues [seeds, parameters] by number of directions (both locks), and by place (fold)."""
    plain = initial(SEEDS)
    found: dict[str, dict[str, Tensor]] = {
        "inject 100, by k": {},
        "fold 2^7, by channels": {},
        "fold 2^7, by place": {},
    }
    for k in TOP_KS:
        for name, lock in zip(found, SHOWN[2:], strict=False):
            theta = locked(lock, plain, top_k=k)
            found[name][str(k)] = torch.linalg.eigvalsh(curvature.hessian_at(lock.stack, theta, *data))
    for name, hidden in PLACES.items():
        theta = plain * fold_scales(2.0**7, 4, hidden)
        found["fold 2^7, by place"][name] = torch.linalg.eigvalsh(curvature.hessian_at(PLAIN, theta, *data))
    return found


def off_diagonal_share(matrix: Tensor, sizes: list[int]) -> float:
    """Share of the squared Frobenius norm outside the layers' own blocks."""
    total, inside, start = matrix.square().sum(), 0.0, 0
    for size in sizes:
        inside += float(matrix[start : start + size, start : start + size].square().sum())
        start += size
    return 1 - inside / float(total)


def measure(data: Data) -> dict[str, Any]:
    """The numbers behind the figures: extreme eigenvalues and the share of curvature between layers."""
    rows = []
    for lock in SHOWN:
        matrix = curvature.hessian_at(lock.stack, locked(lock, initial(SEEDS)), *data)
        values = torch.linalg.eigvalsh(matrix)
        shares = [off_diagonal_share(m, [layer.size for layer in lock.stack.layers]) for m in matrix]
        rows.append(
            {
                "lock": lock.label,
                "largest": values[:, -1].mean().item(),
                "smallest": values[:, 0].mean().item(),
                "off_diagonal_share": sum(shares) / len(shares),
            }
        )
    spread = {
        name: {key: values.abs().amax(1).log().mean().exp().item() for key, values in group.items()}
        for name, group in variants(data).items()
    }
    return {"seeds": len(SEEDS), "rows": rows, "sigma_1": spread}
