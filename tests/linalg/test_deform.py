"""Spectral deformation against Construction 1 in float64, for stored numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from specdef.errors import PlanError
from specdef.linalg.closeness import default_tolerance
from specdef.linalg.compensation import compensate, effective_weight, measure_lock
from specdef.linalg.deform import Deformation, deform

SHAPES = [(48, 20), (20, 48), (32, 32)]
UNIT = {dtype: torch.finfo(dtype).eps / 2 for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64)}


def random_weight(shape: tuple[int, int], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) / shape[1] ** 0.5).to(dtype)


def wide(d: Deformation) -> Mapping[str, Tensor]:
    return {name: t.double() if t.is_floating_point() else t for name, t in d.tensors.items()}


def dense_c(d: Deformation, n: int) -> Tensor:
    """C itself, column by column through `compensate`: the oracle for every form."""
    return compensate(torch.eye(n, dtype=torch.float64), wide(d)).T


def relative(actual: Tensor, expected: Tensor) -> float:
    return (torch.linalg.norm(actual - expected) / torch.linalg.norm(expected)).item()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["dense", "low_rank"])
def test_deformed_weight_is_construction_1(shape: tuple[int, int], form: str) -> None:
    w = random_weight(shape, torch.float64)
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    scaled = s.clone()
    scaled[:5] *= 1e4
    d = deform(w, 5, 1e4, form=form)
    # 1 / alpha - 1, stored for low rank, carries alpha * eps of relative error in the multiplier.
    tolerance = (1e4 if form == "low_rank" else 1) * 48 * UNIT[torch.float64]
    torch.testing.assert_close(d.weight, (u * scaled) @ vh, rtol=0, atol=tolerance * scaled[0].item())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("multiplier", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dense_in_float64_undoes_the_stored_weight(
    shape: tuple[int, int], multiplier: float, dtype: torch.dtype
) -> None:
    w = random_weight(shape, dtype)
    d = deform(w, 5, multiplier, compensation_dtype=torch.float64)
    assert d.side == ("output" if shape[0] >= shape[1] else "input")
    assert d.weight.dtype == dtype
    # Rounding C (u_64) and W~ itself (nothing: C is solved against it); W~ is multiplier times larger than W.
    bound = 64 * UNIT[torch.float64] * min(multiplier, 1 / UNIT[dtype]) * math.prod(shape) ** 0.5
    assert d.weight_error <= bound
    c, locked = d.tensors["compensation"], d.weight.double()
    product = c @ locked if d.side == "output" else locked @ c
    # Two orders of summation: they agree to what rounding one product may cost, |fl(AB) - AB| <= n u |A| |B|.
    rounding = min(shape) * UNIT[torch.float64] * float(c.norm() * locked.norm() / w.double().norm())
    assert relative(product, w.double()) == pytest.approx(d.weight_error, rel=1e-6, abs=rounding)


def test_the_papers_compensation_cannot_undo_rounding() -> None:
    """Why C is solved against the stored W~: C = U diag(s / s~) U^T of the unrounded W~ loses multiplier * eps."""
    w = random_weight((32, 32))
    d = deform(w, 5, 1e6, compensation_dtype=torch.float64)
    u, _, _ = torch.linalg.svd(w.double())
    inverse = torch.ones(32, dtype=torch.float64)
    inverse[:5] = 1e-6
    paper = (u * inverse) @ u.T
    assert relative(paper @ d.weight.double(), w.double()) > 1e-3
    assert d.weight_error < 1e-7


def test_compensation_on_the_wrong_side_is_another_function() -> None:
    d = deform(random_weight((32, 32)), 5, 1e4)
    wrong = effective_weight(d.weight, d.tensors, "input")
    assert relative(wrong, random_weight((32, 32)).double()) > 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("multiplier", [16.0, 1e3])
def test_low_rank_error_is_the_rounding_it_cannot_undo(shape: tuple[int, int], multiplier: float) -> None:
    w = random_weight(shape)
    d = deform(w, 5, multiplier, form="low_rank", compensation_dtype=torch.float64)
    assert d.side == ("output" if shape[0] <= shape[1] else "input")
    n = min(shape)
    assert d.num_extra_parameters == n * 5 + 5
    assert d.weight_error <= multiplier * UNIT[torch.float32] * 5**0.5 * 4
    exact = deform(w.double(), 5, multiplier, form="low_rank")
    assert exact.weight_error <= multiplier * UNIT[torch.float64] * n
    c = dense_c(d, n)
    torch.testing.assert_close(c, c.T, rtol=0, atol=1e-15)
    assert torch.linalg.matrix_rank(c - torch.eye(n)) == 5


def test_rounding_the_low_rank_basis_costs_nothing() -> None:
    """W~ = C^-1 W is computed for the basis as stored, so a float32 basis and a float64 weight still match."""
    w = random_weight((32, 40), torch.float64)
    d = deform(w, 5, 1e3, form="low_rank", compensation_dtype=torch.float32, tolerance=math.inf)
    assert d.weight_error < 1e3 * UNIT[torch.float64] * 32 < UNIT[torch.float32]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_axis_with_a_power_of_two_is_bit_exact(shape: tuple[int, int], dtype: torch.dtype) -> None:
    w = random_weight(shape, dtype)
    d = deform(w, 5, 2.0**10, basis="axis")
    assert (d.form, d.weight_error, d.function_error) == ("diagonal", 0.0, 0.0)
    # Dividing a small float16 activation by 2^10 would lose its last bits.
    assert d.compensation_dtype == (torch.float32 if dtype == torch.float16 else dtype)
    assert d.num_extra_parameters == 10
    assert torch.equal(effective_weight(d.weight, d.tensors, d.side).to(dtype), w)
    index, norms = d.tensors["compensation_index"], w.double().norm(dim=1 if d.side == "output" else 0)
    assert set(index.tolist()) == set(norms.topk(5).indices.tolist())


def test_axis_without_a_power_of_two_costs_one_rounding() -> None:
    w = random_weight((32, 32), torch.bfloat16)
    d = deform(w, 5, 1e4, basis="axis")
    assert d.compensation_dtype == torch.float32
    assert 0 < d.weight_error <= UNIT[torch.bfloat16]


@settings(max_examples=20, deadline=None)
@given(
    m=st.integers(2, 24),
    n=st.integers(2, 24),
    exponent=st.integers(1, 30),
    seed=st.integers(0, 2**16),
    form=st.sampled_from(["dense", "low_rank", "axis"]),
    data=st.data(),
)
def test_compensation_undoes_any_deformation(
    m: int, n: int, exponent: int, seed: int, form: str, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, min(m, n)))
    w = random_weight((m, n), torch.float64, seed)
    basis, form = ("axis", "dense") if form == "axis" else ("svd", form)
    d = deform(w, k, 2.0**exponent, basis=basis, form=form, tolerance=math.inf)  # type: ignore[arg-type]
    condition = (torch.linalg.svdvals(w)[0] / torch.linalg.norm(w)).item()
    assert relative(effective_weight(d.weight, d.tensors, d.side), w) <= 2.0**exponent * 1e-13 * (1 + condition)


@pytest.mark.parametrize(
    ("weight", "multiplier", "form", "expected"),
    [
        (torch.float32, 1e2, "dense", torch.float32),
        (torch.float32, 1e5, "dense", torch.float64),
        (torch.float32, 1e6, "dense", torch.float64),
        (torch.float32, 1e9, "dense", torch.float64),
        (torch.bfloat16, 1e9, "dense", torch.float32),
        (torch.float32, 1e2, "low_rank", torch.float32),
        (torch.float32, 1e4, "low_rank", torch.float32),
        (torch.float64, 2.0, "dense", torch.float64),
    ],
)
def test_the_narrowest_dtype_within_tolerance_is_chosen(
    weight: torch.dtype, multiplier: float, form: str, expected: torch.dtype
) -> None:
    w = random_weight((60, 24), weight)
    assert deform(w, 5, multiplier, form=form).compensation_dtype == expected
    d = deform(w, 5, multiplier, form=form)  # type: ignore[arg-type]
    assert d.function_error <= d.tolerance == default_tolerance(weight)


def test_predicted_error_is_the_error_of_the_stored_tensors() -> None:
    w = random_weight((60, 24))
    d = deform(w, 5, 1e4, compensation_dtype=torch.float32, tolerance=math.inf)
    x = torch.randn(500, 24, generator=torch.Generator().manual_seed(9))
    y = compensate(x.double() @ d.weight.double().T, d.tensors)
    assert relative(y, x.double() @ w.double().T) == pytest.approx(d.function_error, rel=0.5)
    narrow = compensate(x @ d.weight.T, d.tensors)  # why float32 weights are multiplied in float64
    assert relative(narrow.double(), x.double() @ w.double().T) > 3 * d.function_error


@pytest.mark.parametrize(
    ("dtype", "multiplier", "options", "message"),
    [
        (torch.bfloat16, 1e4, {"form": "low_rank"}, "`form` dense or `basis` axis"),
        (torch.float32, 1e6, {"form": "low_rank"}, "a multiplier of at most about"),
        (torch.bfloat16, 1e4, {"form": "low_rank"}, "the relative error of the layer within 3.9e-03 for bfloat16"),
        (
            torch.float32,
            1e6,
            {"compensation_dtype": torch.float32},
            r"with C in float32\. Use .*`compensation_dtype` float64 or `basis` axis",
        ),
        (
            torch.float32,
            1e6,
            {"basis": "axis", "tolerance": 1e-12},
            "the widest there is. Use a power of two as multiplier.",
        ),
        (torch.float16, 1e9, {}, "`multiplier` must keep W~ inside float16 .at most 6.55e.04.; got 1e.09"),
        (torch.float32, 1.0, {}, "`multiplier` must be a finite number above 1; got 1.0"),
        (torch.float32, math.inf, {}, "`multiplier` must be a finite number above 1; got inf"),
        (torch.float32, 1e3, {"basis": "fourier"}, "`basis` must be svd or axis; got 'fourier'"),
        (torch.float32, 1e3, {"form": "sparse"}, "`form` must be dense or low_rank; got 'sparse'"),
    ],
)
@pytest.mark.usefixtures("any_shape")
def test_refusals(dtype: torch.dtype, multiplier: float, options: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        deform(random_weight((40, 24), dtype), 5, multiplier, **options)


def test_the_multiplier_a_refusal_offers_works() -> None:
    w = random_weight((40, 24))
    with pytest.raises(PlanError, match=r"at most about ([0-9e.+]+)") as caught:
        deform(w, 5, 1e7, form="low_rank")
    offered = float(str(caught.value).split("at most about ")[1].split()[0])
    assert offered > 100
    assert deform(w, 5, offered / 2, form="low_rank").function_error <= default_tolerance(torch.float32)


@pytest.mark.parametrize(("k", "basis", "most"), [(0, "svd", 24), (25, "svd", 24), (41, "axis", 40)])
def test_k_out_of_range(k: int, basis: str, most: int) -> None:
    for shape in ((40, 24), (24, 40)):
        refused = rf"`rank` must be between 1 and {most} for a weight of shape \[{shape[0]}, {shape[1]}\]; got {k}"
        with pytest.raises(PlanError, match=refused):
            deform(random_weight(shape), k, 1e3, basis=basis)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("basis", ["svd", "axis"])
def test_non_finite_weights(bad: float, basis: str) -> None:
    w = random_weight((40, 24))
    w[3, 4] = bad
    with pytest.raises(PlanError, match=r"^`weight` must hold finite numbers; got NaN or inf\. Check the checkpoint"):
        deform(w, 5, 1e3, basis=basis)  # type: ignore[arg-type]


def test_quantised_dtypes_are_refused() -> None:
    with pytest.raises(PlanError, match=r"or float16; got float8_e4m3fn\. Lock the model before quantising it"):
        default_tolerance(torch.float8_e4m3fn)


def test_rank_deficient_weight_keeps_its_zero_columns() -> None:
    w = random_weight((40, 24))
    w[:, 3] = 0
    w[:, 7] = 0
    d = deform(w, 5, 1e6)
    assert d.weight_error < 1e-8
    assert effective_weight(d.weight, d.tensors, d.side)[:, [3, 7]].abs().max() < 1e-8


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["dense", "low_rank"])
def test_measured_strength_is_the_multiplier(shape: tuple[int, int], form: str) -> None:
    w = random_weight(shape)
    d = deform(w, 5, 1e3, form=form)  # type: ignore[arg-type]
    s = torch.linalg.svdvals(w.double())
    lock = measure_lock(d.weight, d.tensors, d.side, 5)
    assert lock.sigma_1 == pytest.approx(1e3 * s[0].item(), rel=4e3 * UNIT[torch.float32])
    torch.testing.assert_close(lock.effective, s[:5], rtol=1e-4, atol=0)
    torch.testing.assert_close(lock.ratio, torch.full((5,), 1e3, dtype=torch.float64), rtol=1e-3, atol=0)


def test_measured_strength_of_an_unlocked_weight_is_one() -> None:
    w = random_weight((40, 24))
    lock = measure_lock(w, {"compensation": torch.eye(40)}, "output", 5)
    torch.testing.assert_close(lock.ratio, torch.ones(5, dtype=torch.float64), rtol=1e-12, atol=0)


def test_columns_of_zeros_at_the_end_of_a_wide_matrix_are_no_trouble() -> None:
    """As many living columns as rows: a triangle whose pivots are sound, and which is not square."""
    w = random_weight((10, 16), torch.float32)
    w[:, 10:] = 0
    d = deform(w, 3, 1e3)
    assert d.function_error <= d.tolerance
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    assert relative(compensate(x.double() @ d.weight.double().T, d.tensors), x.double() @ w.double().T) < 1e-4


def test_the_multiplier_that_fits_the_dtype_works() -> None:
    w = random_weight((40, 24), torch.float16)
    with pytest.raises(PlanError, match="Use at most about") as caught:
        deform(w, 5, 1e9)
    offered = float(str(caught.value).split("at most about ")[1].rstrip("."))
    assert offered > 100
    assert deform(w, 5, offered, tolerance=math.inf).weight.isfinite().all()
    with pytest.raises(PlanError, match="must keep W~ inside float16"):
        deform(w, 5, 4 * offered, tolerance=math.inf)
