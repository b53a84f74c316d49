"""Directions a stored matrix has: rounding is none, and no huge row or column buries one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specdef.errors import PlanError
from specdef.linalg.deform import deform
from specdef.linalg.rank import numerical_rank

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(6, 40),
    n=st.integers(6, 40),
    rank=st.integers(1, 4),
    seed=st.integers(0, 2**16),
    dtype=st.sampled_from(DTYPES),
    power=st.integers(0, 12),
)
def test_rank_of_a_rounded_product(m: int, n: int, rank: int, seed: int, dtype: torch.dtype, power: int) -> None:
    """Rows and columns scaled by powers of two keep it, as they keep every rounding."""
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(m, rank, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(n, rank, generator=generator, dtype=torch.float64))
    w = (left @ right.T).to(dtype).double()
    w[seed % m] *= 2.0**power
    w[:, seed % n] *= 2.0**power
    assert numerical_rank(w, 5, dtype) == rank


@pytest.mark.parametrize("basis", ["svd", "axis"])
@pytest.mark.parametrize("form", ["dense", "low_rank"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_zero_matrix_is_refused(basis: str, form: str, dtype: torch.dtype) -> None:
    expected = "`weight` must have a direction to scale; got a matrix of zeros. Choose another matrix."
    axis = r"`rank` must be at most 0, the rows of this weight that are not zero; got 2. Lower it or choose another"
    with pytest.raises(PlanError, match=expected if basis == "svd" else axis):
        deform(torch.zeros(12, 8, dtype=dtype), 2, 1e3, basis=basis, form=form)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["dense", "low_rank"])
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (300, 280)])
def test_rank_one_takes_no_second_direction(dtype: torch.dtype, form: str, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, generator=generator, dtype=torch.float64) for n in shape)
    w = torch.outer(left, right).to(dtype)
    expected = (
        rf"`rank` must be at most 1, the directions this weight has above the rounding of {str(dtype)[6:]}; got 2"
    )
    with pytest.raises(PlanError, match=expected):
        deform(w, 2, 1e3, form=form)  # type: ignore[arg-type]


def test_axis_takes_no_row_of_zeros() -> None:
    w = torch.zeros(12, 8)
    w[3], w[5] = 1.0, 2.0
    with pytest.raises(PlanError, match="`rank` must be at most 2, the rows of this weight that are not zero; got 3"):
        deform(w, 3, 1024.0, basis="axis")
    assert deform(w, 2, 1024.0, basis="axis").tensors["compensation_index"].tolist() == [3, 5]


def test_a_huge_row_buries_no_direction() -> None:
    w = torch.randn(40, 24, generator=torch.Generator().manual_seed(0))
    w[3] *= 1e8
    assert numerical_rank(w, 5, torch.float32) == 5
    assert torch.linalg.matrix_rank(w) == 1  # the usual rule takes the rest for noise


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e3, 1e30])
def test_the_rank_does_not_depend_on_the_size(size: float) -> None:
    w = torch.zeros(12, 9, dtype=torch.float64)
    for at in range(4):
        w[at, at] = size * 10.0 ** (-3 * at)
    assert numerical_rank(w, 6, torch.float32) == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_an_entry_at_the_smallest_number_may_be_all_rounding(dtype: torch.dtype) -> None:
    """Half of the smallest number was rounded up to it: the second direction is no more than that."""
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    w = torch.full((6, 5), 100 * smallest, dtype=torch.float64)
    w[0, 0] += smallest
    assert numerical_rank(w, 3, dtype) == 1
    w[0, 0] += 5 * smallest
    assert numerical_rank(w, 3, dtype) == 2
