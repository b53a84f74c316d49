"""Figure 3: gradient descent on a quadratic, iterations against L."""

from __future__ import annotations

from typing import Any

import torch

SMOOTHNESS = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0]
DIMENSIONS = 20
TOLERANCE = 1e-3
LIMIT = 1_000_000


def measure() -> list[dict[str, Any]]:
    """Steps until |gradient| <= TOLERANCE from a unit start, eigenvalues 1 ... L in a geometric row.

    Step sizes: 1 / L, the best constant one 2 / (L + 1), 1.99 / L just inside the limit, and one rate per coordinate.
    """
    rows = []
    for largest in SMOOTHNESS:
        values = torch.logspace(0, torch.log10(torch.tensor(largest)).item(), DIMENSIONS, dtype=torch.float64)
        start = torch.ones(DIMENSIONS, dtype=torch.float64) / DIMENSIONS**0.5
        rates = {"1/L": 1 / largest, "2/(L+1)": 2 / (largest + 1), "1.99/L": 1.99 / largest, "2.01/L": 2.01 / largest}
        row: dict[str, Any] = {"L": largest}
        for name, rate in rates.items():
            row[name] = _steps(values, start, torch.full_like(values, rate))
        row["1/eigenvalue, per coordinate"] = _steps(values, start, 1 / values)
        rows.append(row)
    return rows


def _steps(values: torch.Tensor, start: torch.Tensor, rates: torch.Tensor) -> int | None:
    """First step by bisection on the closed form |values (1 - rate values)^t start|, which only falls; None: never."""
    factor = (1 - rates * values).abs()

    def small(t: int) -> bool:
        return bool((values * factor**t * start).norm() <= TOLERANCE)

    if (factor > 1).any() or not small(LIMIT):
        return None
    low, high = 0, LIMIT
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if small(middle) else (middle + 1, high)
    return low
