"""Table 11: bound of Theorem 3 <= sigma_1(block) <= sigma_1(H) in every seed, and growth with the multiplier."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.theory.networks import (
    SIZE,
    Locked,
    block_of,
    compensated_mlp,
    folded_attention,
    folded_mlp,
    full_hessian,
    plain_attention,
    plain_mlp,
)
from experiments.theory.record import EPS, listed, loglog_slope, mean_std, rounding, write
from specdef.theory import hessian_lower_bound, principal_angle_cosine

SEEDS = range(30)
MULTIPLIERS = (1.0, 10.0, 100.0, 1000.0, 5000.0)
POWERS = (1.0, 2.0**3, 2.0**7, 2.0**10, 2.0**12)
Build = Callable[[range, float], Locked]

AS_PRINTED: dict[str, Build] = {
    "MLP ReLU": partial(plain_mlp, activation="relu"),
    "MLP GELU": partial(plain_mlp, activation="gelu"),
    "self-attention": partial(plain_attention, weight="wv"),
}
COMPENSATED: dict[str, Build] = {
    "MLP ReLU with C, block (W1, w3)": partial(compensated_mlp, inner=False),
    "MLP ReLU with C, block (W1, C)": partial(compensated_mlp, inner=True),
    "self-attention, W_K scaled, block (W_V, W_Q)": partial(plain_attention, weight="wk"),
}
FOLDED: dict[str, Build] = {
    "MLP ReLU, W2 up and W1 down": folded_mlp,
    "self-attention, W_V up and w_o down, block (w_o, W_Q)": partial(folded_attention, up="wv"),
    "self-attention, w_o up and W_V down, block (W_V, W_Q)": partial(folded_attention, up="wo"),
}
PRINTED: dict[str, tuple[str, ...]] = {
    "MLP ReLU": (
        "0.32 / 0.94 / 1.47",
        "3.36 / 7.75 / 7.82",
        "37.07 / 74.81 / 74.83",
        "309.38 / 580.02 / 580.02",
        "1469.93 / 3518.09 / 3518.09",
    ),
    "MLP GELU": (
        "0.24 / 0.60 / 1.06",
        "3.39 / 6.02 / 9.76",
        "29.62 / 71.16 / 213.49",
        "290.68 / 610.09 / 776.61",
        "1631.60 / 3463.65 / 4016.44",
    ),
    "self-attention": (
        "0.41 / 0.91 / 2.49",
        "3.27 / 5.12 / 11.51",
        "30.41 / 70.52 / 137.56",
        "260.64 / 550.32 / 1400.47",
        "1616.20 / 3366.71 / 7624.24",
    ),
}
"""The paper's means of (bound, sigma_1(block), sigma_1(H)), by multiplier; shown beside ours, used nowhere else."""

NOTES = (
    "`bound 1,1` takes r = t = 1, which is what the paper's columns multiply out to; `bound` is the supremum of "
    "Theorem 3. Ordered: seeds in which bound <= sigma_1(block) <= sigma_1(H), up to 20 n eps.",
    "Analytic error: largest ||analytic - automatic||_F / sigma_1(block) over seeds; where the block is below "
    "1.5e-8 of sigma_1(H), whose rounding hides it, over sigma_1(H).",
    "Slope: of log mean against log multiplier over the last three multipliers; 1 is linear growth.",
    "The printed MLP rows are those of a network without compensation. The block (W1, w3) holds W2 only in the product "
    "C W2; with C W~2 = W2, as the lock demands, neither it nor its bound grows. The block (W1, C) does: the published "
    "network has the curvature as long as C is a parameter.",
    "Which weight of self-attention the paper scales is lost. W_V grows linearly, in the block (w_o, W_Q); W_K, which "
    "the paper's block (W_V, W_Q) holds, saturates the softmax, and that block dies out instead of growing.",
    "With A = I (block (w_o, W_Q)) the leading vector of A is arbitrary, and so are s(A, W) and `bound 1,1`.",
    "sigma_1(H) of GELU jumps where a pre-activation passes the region with phi'' far from 0, in the paper too.",
    "GELU is not homogeneous: no fold across it is exact, so it has no folded row. Folded multipliers are powers of 2.",
    f"Every width is {SIZE}, an inference (experiments/theory/networks.py); matrices have entries of variance 1/{SIZE} "
    "and are scaled to sigma_1 = 1 before the multiplier, inputs are standard normal.",
)


def run(name: str) -> Path:
    """Three networks as printed, with compensation, and folded."""
    per_seed: list[dict[str, Any]] = []
    printed = _rows(AS_PRINTED, MULTIPLIERS, per_seed)
    tables = {
        "As printed: largest singular value times the multiplier, nothing compensated": printed,
        "Compensated, and a weight before the softmax": _rows(COMPENSATED, MULTIPLIERS, per_seed),
        "Fold lock": _rows(FOLDED, POWERS, per_seed),
    }
    return write(name, "Table 11: Theorem 3 on toy networks", NOTES, tables, list(SEEDS), per_seed)


def _rows(
    builds: dict[str, Build], multipliers: tuple[float, ...], per_seed: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    rows = []
    for network, build in builds.items():
        measured = [measure(build(SEEDS, multiplier)) for multiplier in multipliers]
        columns = ("bound", "sigma_1(block)", "sigma_1(H)")
        slopes = [
            loglog_slope(multipliers[-3:], [values[column].mean().item() for values in measured[-3:]])
            for column in columns
        ]
        for index, (multiplier, values) in enumerate(zip(multipliers, measured, strict=True)):
            kept = {column: values[column] for column in ("bound 1,1", *columns)}
            per_seed.append({"network": network, "multiplier": multiplier} | listed(**kept))
            row: dict[str, Any] = {"network": network, "multiplier": f"{multiplier:g}"}
            row |= {column: mean_std(values[column]) for column in list(values) if column not in ("ordered", "error")}
            row["ordered"] = f"{int(values['ordered'].sum())} of {len(SEEDS)}"
            row["analytic error"] = f"{values['error'].amax().item():.1e}"
            printed = PRINTED.get(network)
            row["paper: bound / block / H"] = printed[index] if printed else "-"
            last = index == len(multipliers) - 1
            row["slopes"] = " / ".join(f"{slope:.3f}" for slope in slopes) if last else ""
            rows.append(row)
        assert all(bool(values["ordered"].all()) for values in measured), network
    return rows


def measure(net: Locked) -> dict[str, Tensor]:
    """Every column, one entry per seed."""
    a, w, b = net.block.a, net.block.w, net.block.b
    hessian = full_hessian(net)
    automatic = block_of(hessian, net)
    top = {key: torch.linalg.svdvals(matrix)[:, 0] for key, matrix in (("a", a), ("w", w), ("b", b))}
    block, whole = torch.linalg.svdvals(net.block.block)[:, 0], torch.linalg.svdvals(hessian)[:, 0]
    visible = block > EPS**0.5 * whole
    error = torch.linalg.matrix_norm(net.block.block - automatic) / block.where(visible, whole).clamp(
        min=torch.finfo(torch.float64).tiny
    )
    bound = hessian_lower_bound(a, w, b)
    first = hessian_lower_bound(a, w, b, r=1, t=1)
    slack = rounding(top["a"] * top["w"] * top["b"], max(a.shape[-2], b.shape[-1]))
    ordered = (bound <= block + slack) & (first <= bound + slack)
    ordered &= block <= whole + rounding(whole, hessian.shape[-1])
    return {
        "sigma_1(A)": top["a"],
        "sigma_1(B)": top["b"],
        "s(A, W)": principal_angle_cosine(a, w, 1, 1),
        "s(AW, B)": principal_angle_cosine(a @ w, b, 1, 1),
        "bound 1,1": first,
        "bound": bound,
        "sigma_1(block)": block,
        "sigma_1(H)": whole,
        "ordered": ordered,
        "error": error,
    }
