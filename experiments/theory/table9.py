"""Table 9: the principal-angle bound while B is rotated away from A, in two and three dimensions.

The copy of the paper lost the matrices. Chosen here: A = diag(3, 1), B = R(theta) diag(2, 1), k = r = 1; and
A = diag(3, 2, 1), B = R(theta) diag(2, 1.5, 1) turned about the first axis, k = r = 2.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.theory.record import rounding, write
from specdef.theory import principal_angle_cosine, product_lower_bound

DEGREES = (0, 18, 36, 54, 72, 90)


def run(name: str) -> Path:
    """Bound, actual value and ratio for six rotations."""
    flat = torch.diag(torch.tensor([3.0, 1.0])).double(), torch.diag(torch.tensor([2.0, 1.0])).double()
    solid = torch.diag(torch.tensor([3.0, 2.0, 1.0])).double(), torch.diag(torch.tensor([2.0, 1.5, 1.0])).double()
    tables = {
        "2D: k = r = 1": [_row(*flat, degrees, 1) for degrees in DEGREES],
        "3D: k = r = 2": [_row(*solid, degrees, 2) for degrees in DEGREES],
    }
    notes = [
        "Matrices chosen here: the copy of the paper has the angles but neither the matrices nor the values.",
        "`sup r` is Remark 21. Where r = k is nearly orthogonal, a larger r takes over: all rows of a square factor "
        "leave no angle.",
    ]
    return write(name, "Table 9: the angle bound under rotation", notes, tables, [])


def _row(a: Tensor, b: Tensor, degrees: int, k: int) -> dict[str, Any]:
    n = a.shape[-1]
    theta = math.radians(degrees)
    rotation = torch.eye(n, dtype=torch.float64)
    rotation[-2:, -2:] = torch.tensor([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    turned = rotation @ b
    actual = torch.linalg.svdvals(a @ turned)[k - 1]
    bound, best = product_lower_bound(a, turned, k, k), product_lower_bound(a, turned, k)
    slack = rounding(torch.linalg.svdvals(a)[0] * torch.linalg.svdvals(b)[0], n)
    assert bound <= actual + slack
    assert best <= actual + slack
    return {
        "degrees": degrees,
        "cosine": principal_angle_cosine(a, turned, k, k).item(),
        "bound": bound.item(),
        "bound, sup r": best.item(),
        "actual": actual.item(),
        "ratio": (bound / actual).item(),
        "ratio, sup r": (best / actual).item(),
    }
