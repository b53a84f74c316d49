"""Table 29: bounds (17) and (18) of the third derivative of a four-layer MLP as P is scaled, and under a fold lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.theory.record import listed, loglog_slope, mean_std, rounding, write
from specdef.theory import (
    ActivationName,
    ThirdDerivative,
    composite_lower_bound,
    composite_upper_bound,
    inflation_margin,
    mlp_third_derivative,
    t_product,
    tensor_product_lower_bound,
    tensor_singular_values,
)

SEEDS = range(30)
SCALES = (1.0, 10.0, 100.0, 1000.0)
POWERS = (1.0, 2.0**3, 2.0**7, 2.0**10)
SHAPES = {"w1": (3, 2), "w2": (2, 3), "w3": (4, 2), "x": (2,)}

NOTES = (
    "Sizes chosen here (2 inputs, widths 3, 2, 4; tensors 4 x 6 x 6): the copy of the paper lost them and the table.",
    "Only P is scaled, Q and R are held fixed and the tensor is rebuilt by the T-product, as the paper says. Folded: "
    "columns of W3 times, rows of W2 divided by a power of two; the whole derivative is computed anew.",
    "`lower (18)` uses min_k sigma_min(Phat_k) sigma_1(Q): the side with sigma_min(Qhat_k) is 0 for every such "
    "network, whose Fourier slices of Q have rank 1. `lower, angles` uses Theorem 19 in every slice instead.",
    "delta > 0: seeds that meet condition (20). Ordered: seeds with lower <= sigma_1(T) <= upper, up to rounding.",
    "Under ReLU, R = 0; a closed gate in layer 2 makes (18) zero, not the angle bound.",
    "Slopes of log mean against log scale over the last three scales: lower with angles, sigma_1(T), upper.",
)


def run(name: str) -> Path:
    """P scaled for GELU, tanh and ReLU; folded for ReLU."""
    per_seed: list[dict[str, Any]] = []
    activations: tuple[ActivationName, ...] = ("gelu", "tanh", "relu")
    scaled: list[dict[str, Any]] = []
    for each in activations:
        scaled += _rows(f"MLP {each}", SCALES, [_scaled(each, scale) for scale in SCALES], per_seed)
    folded = [mlp_third_derivative(*_folded(power), "relu") for power in POWERS]
    tables = {"P scaled": scaled, "Fold lock": _rows("MLP relu, folded", POWERS, folded, per_seed)}
    return write(name, "Table 29: T-SVD bounds as the scale grows", NOTES, tables, list(SEEDS), per_seed)


def _draw() -> dict[str, Tensor]:
    drawn: dict[str, list[Tensor]] = {name: [] for name in SHAPES}
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(seed)
        for name, shape in SHAPES.items():
            drawn[name].append(torch.randn(shape, generator=generator, dtype=torch.float64) / shape[-1] ** 0.5)
    return {name: torch.stack(values) for name, values in drawn.items()}


def _folded(power: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    w = _draw()
    return w["w1"], w["w2"] / power, w["w3"] * power, w["x"]


def _scaled(activation: ActivationName, scale: float) -> ThirdDerivative:
    w = _draw()
    found = mlp_third_derivative(w["w1"], w["w2"], w["w3"], w["x"], activation)
    p = scale * found.p
    return ThirdDerivative(t_product(p, found.q) + found.r, p, found.q, found.r)


def _rows(
    network: str, scales: tuple[float, ...], versions: list[ThirdDerivative], per_seed: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    rows, means = [], []
    for scale, found in zip(scales, versions, strict=True):
        p, q, r = found.p, found.q, found.r
        lower, angles = composite_lower_bound(p, q, r), composite_lower_bound(p, q, r, angles=True)
        actual, upper = tensor_singular_values(found.tensor)[:, 0], composite_upper_bound(p, q, r)
        slack = rounding(upper * q.shape[-1], q.shape[-1])
        ordered = (lower <= actual + slack) & (angles <= actual + slack) & (actual <= upper + slack)
        assert ordered.all(), network
        meets = (inflation_margin(p, q, r) > 0) & (tensor_product_lower_bound(p, q, 1) > slack)
        means.append([column.mean().item() for column in (angles, actual, upper)])
        columns = listed(lower=lower, angles=angles, sigma_1=actual, upper=upper, meets_20=meets)
        per_seed.append({"network": network, "scale": scale} | columns)
        rows.append(
            {
                "network": network,
                "scale": f"{scale:g}",
                "lower (18)": mean_std(lower),
                "lower, angles": mean_std(angles),
                "sigma_1(T)": mean_std(actual),
                "upper (17)": mean_std(upper),
                "delta > 0": f"{int(meets.sum())} of {len(SEEDS)}",
                "ordered": f"{int(ordered.sum())} of {len(SEEDS)}",
                "slopes": "",
            }
        )
    last = list(zip(*means[-3:], strict=True))
    rows[-1]["slopes"] = " / ".join(f"{loglog_slope(scales[-3:], list(column)):.3f}" for column in last)
    return rows
