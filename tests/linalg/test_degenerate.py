"""Whatever the matrix: a lock that keeps every output and is there when measured, or one sentence that refuses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from specdef.errors import PlanError
from specdef.linalg.closeness import SPREAD
from specdef.linalg.compensation import compensate, compute_dtype, measure_lock
from specdef.linalg.deform import Deformation, deform

KINDS = ["ordinary", "duplicate", "zero rows", "zero columns", "huge row", "huge column", "nearly rank one", "tiny"]
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def matrix(kind: str, shape: tuple[int, int], dtype: torch.dtype, seed: int, size: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(shape, generator=generator, dtype=torch.float64) / shape[1] ** 0.5
    row, column = seed % shape[0], seed % shape[1]
    if kind == "duplicate":
        u, _, vh = torch.linalg.svd(w, full_matrices=False)
        w = u @ vh
    elif kind == "zero rows":
        w[row], w[(row + 1) % shape[0]] = 0, 0
    elif kind == "zero columns":
        w[:, column], w[:, (column + 1) % shape[1]] = 0, 0
    elif kind == "huge row":
        w[row] *= size
    elif kind == "huge column":
        w[:, column] *= size
    elif kind == "nearly rank one":
        w = w / size + torch.outer(torch.ones(shape[0]), torch.ones(shape[1])).double()
    elif kind == "tiny":
        w = w * 1e-20
    return w.to(dtype)


def output(d: Deformation, x: Tensor, dtype: torch.dtype) -> Tensor:
    """The locked layer written out again, in the dtype it computes in."""
    wide = compute_dtype(dtype, d.weight.dtype, d.compensation_dtype, d.form)
    if d.side == "output":
        return compensate(functional.linear(x.to(wide), d.weight.to(wide)), d.tensors).double()
    return functional.linear(compensate(x.to(wide), d.tensors), d.weight.to(wide)).double()


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    shape=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    dtype=st.sampled_from(DTYPES),
    rank=st.integers(1, 6),
    power=st.integers(4, 30),
    off=st.sampled_from([1.0, 1.3]),
    form=st.sampled_from(["dense", "low_rank", "axis"]),
    seed=st.integers(0, 2**16),
    size=st.sampled_from([1e2, 1e4, 1e7]),
)
def test_sound_or_refused(
    kind: str,
    shape: tuple[int, int],
    dtype: torch.dtype,
    rank: int,
    power: int,
    off: float,
    form: str,
    seed: int,
    size: float,
) -> None:
    w, multiplier = matrix(kind, shape, dtype, seed, size), off * 2.0**power
    basis, form = ("axis", "dense") if form == "axis" else ("svd", form)
    try:
        d = deform(w, rank, multiplier, basis=basis, form=form)  # type: ignore[arg-type]
    except PlanError as error:
        told = str(error)
        assert "nan" not in told.replace("nan or inf", "")
        assert told.startswith(("`multiplier` must keep the relative error of", "`rank` must be at most"))
        assume(False)
    assert torch.isfinite(d.weight).all()
    assert all(torch.isfinite(tensor).all() for tensor in d.tensors.values())

    rows = w.double().norm(dim=1)
    x = torch.randn(400, shape[1], generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64).to(dtype)
    expected, found = functional.linear(x.double(), w.double()), output(d, x, dtype)
    own = torch.finfo(compute_dtype(dtype, dtype, d.compensation_dtype, d.form)).eps * shape[1]
    error = (found - expected).norm(dim=0) / expected.norm(dim=0)
    alive = rows > d.tolerance * rows[rows > 0].median()
    assert error[alive].max() <= 1.5 * SPREAD * d.tolerance + own

    if d.form == "diagonal":
        factor = d.tensors["compensation_factor"].double()
        assert (factor * multiplier - 1).abs().max() < 1e-6
    else:
        values = torch.linalg.svdvals(w.double())
        blur = (
            d.weight_error * (values.norm() / values[rank - 1]).item()
        )  # what C W~ = W + error does to the k-th value
        measured = measure_lock(d.weight, d.tensors, d.side, rank).ratio.median()
        assert measured == pytest.approx(multiplier, rel=0.05 + 2 * blur)


@pytest.mark.parametrize("kind", ["ordinary", "duplicate", "zero rows", "zero columns", "tiny"])
@pytest.mark.parametrize("shape", [(24, 24), (40, 24), (24, 40)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("multiplier", [1e2, 1e4, 1e9])
def test_what_no_row_dominates_is_never_refused(
    kind: str, shape: tuple[int, int], dtype: torch.dtype, multiplier: float
) -> None:
    w = matrix(kind, shape, dtype, 0, 1.0)
    assert deform(w, 4, multiplier).closeness.least_tolerance < math.inf
    assert deform(w, 4, 2.0**20, basis="axis").closeness.worst.value == 0


@pytest.mark.parametrize(("shape", "side"), [((26, 28), "output"), ((24, 24), "input"), ((40, 41), "output")])
def test_c_acts_where_the_living_rows_or_columns_are_more(shape: tuple[int, int], side: str) -> None:
    """A square matrix with dead rows has no left inverse in rounded numbers, but a right one."""
    kind = "zero rows" if side == "input" else "zero columns"
    d = deform(matrix(kind, shape, torch.float32, 0, 1.0), 4, 1e6)
    assert d.side == side
    assert d.closeness.worst.value < 1e-6


def test_a_rank_k_c_stores_the_multiplier_it_claims() -> None:
    """1 / alpha - 1 in float32 is a multiplier 7 % off; nothing else is rounded where all entries are one."""
    d = deform(torch.ones(8, 9), 1, 2.0**21, form="low_rank")
    assert d.compensation_dtype == torch.float64
    assert measure_lock(d.weight, d.tensors, d.side, 1).ratio.item() == pytest.approx(2.0**21, rel=1e-3)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("shape", [(24, 24), (40, 24)])
def test_one_huge_row_takes_a_wider_c(size: float, shape: tuple[int, int]) -> None:
    """It was stored in float32: 2e-4 to 2e-3 off in every other output, 4e-8 over the whole output."""
    w = matrix("huge row", shape, torch.float32, 3, size)
    d = deform(w, 4, 1e4)
    narrow = deform(w, 4, 1e4, compensation_dtype=torch.float32, tolerance=math.inf)
    assert d.compensation_dtype == torch.float64
    assert d.closeness.worst.value < 1e-4
    assert narrow.function_error < 1e-5
    assert narrow.closeness.worst.value > 1e-4
