"""Table 10: the principal-angle bound for every (r, k) of rank-deficient factors, and of the same product folded.

The copy of the paper lost the matrices. Chosen here: A and B of 6 x 6 with standard normal factors of rank 4, 30 seeds.
Folded: the columns of A divided and the rows of B multiplied by 2^10 on three of six channels. A B is the same product.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.theory.record import listed, mean_std, rounding, write
from specdef.theory import principal_angle_cosine, product_lower_bound

SEEDS = range(30)
SIZE, RANK, FOLD = 6, 4, 2.0**10


def run(name: str) -> Path:
    """Every (r, k) with r >= k, as drawn and folded."""
    a, b = (torch.stack([_deficient(seed, which) for seed in SEEDS]) for which in (0, 1))
    channels = torch.tensor([FOLD] * 3 + [1.0] * 3).double()
    folded = a / channels, b * channels.unsqueeze(-1)
    pairs = [(r, k) for r in range(1, RANK + 1) for k in range(1, r + 1)]
    tables = {
        f"rank {RANK} of {SIZE}": [_row(a, b, r, k) for r, k in pairs],
        "the same product, three channels folded by 2^10": [_row(*folded, r, k) for r, k in pairs],
    }
    notes = [
        "Matrices chosen here: the copy of the paper has the pairs (r, k) but neither the matrices nor the values.",
        "The classical bound sigma_k(A) sigma_n(B) is 0 for a rank-deficient B: the case the angle bound is made for.",
        "Folding changes no singular value of the product, only what the bound can see of it.",
        "Every bound was checked against the actual value in every seed.",
    ]
    per_seed = [
        {"folded": x is folded[0], "r": r, "k": k}
        | listed(bound=product_lower_bound(x, y, k, r), actual=torch.linalg.svdvals(x @ y)[:, k - 1])
        for x, y in ((a, b), folded)
        for r, k in pairs
    ]
    return write(name, "Table 10: the angle bound under rank deficiency", notes, tables, list(SEEDS), per_seed)


def _deficient(seed: int, which: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * which + seed)
    left, right = (torch.randn(SIZE, RANK, generator=generator, dtype=torch.float64) for _ in range(2))
    return left @ right.mT


def _row(a: Tensor, b: Tensor, r: int, k: int) -> dict[str, Any]:
    actual = torch.linalg.svdvals(a @ b)[:, k - 1]
    bound = product_lower_bound(a, b, k, r)
    slack = rounding(torch.linalg.svdvals(a)[:, 0] * torch.linalg.svdvals(b)[:, 0], SIZE)
    assert (bound <= actual + slack).all()
    return {
        "r": r,
        "k": k,
        "cosine": mean_std(principal_angle_cosine(a, b, r, k)),
        "bound": mean_std(bound),
        "actual": mean_std(actual),
        "ratio": mean_std(bound / actual),
        "violations": int((bound > actual + slack).sum()),
    }
