from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdef.errors import PlanError
from specdef.linalg.exponent import _round_to, all_finite, scale, scale_offset, scale_stored, to_float
from specdef.linalg.multiplier import exponent_of, format_multiplier, parse_multiplier

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def _stored(tensor: torch.Tensor) -> np.ndarray:
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [-60, -3, 0, 5, 60])
def test_scaling_is_torch_ldexp_and_inverts_to_the_bit(dtype: str, exponent: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4096, generator=generator).to(DTYPES[dtype])
    stored = _stored(values)
    scaled, exact = scale(stored, dtype, exponent)
    oracle = _stored((values.double() * 2.0**exponent).to(DTYPES[dtype]))
    assert np.array_equal(scaled[exact], oracle[exact])
    back, exact_back = scale(scaled[exact], dtype, -exponent)
    assert exact_back.all()
    assert np.array_equal(back, stored[exact])
    if dtype != "F16":
        assert exact.all()


def test_overflow_and_subnormals_are_not_exact() -> None:
    values = np.array([1.0, 60000.0, 2.0**-14, 0.0], dtype=np.float16)
    assert scale(values, "F16", 1)[1].tolist() == [True, False, True, True]
    assert scale(values, "F16", -1)[1].tolist() == [True, True, False, True]
    assert scale(np.array([1.0, 2.0**100], dtype=np.float32), "F32", 60)[1].tolist() == [True, False]


def test_what_leaves_the_range_is_reported_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for exponent, exact in ((60, [True, False, True]), (-60, [True, True, False])):
            assert scale(np.array([1.0, 2.0**100, 2.0**-100], np.float32), "F32", exponent)[1].tolist() == exact
        assert not scale_offset(np.array([2.0**100], np.float32), "F32", 60, 1.0)[1].any()


@given(st.floats(min_value=-4, max_value=8, width=32), st.integers(1, 30))
def test_offset_weights_are_exact_where_claimed(weight: float, exponent: int) -> None:
    for dtype in ("F32", "BF16"):
        stored = _stored(torch.tensor([weight], dtype=DTYPES[dtype]))
        scaled, exact = scale_offset(stored, dtype, exponent, 1.0)
        before = np.float32(1.0) + to_float(stored, dtype)
        after = np.float32(1.0) + to_float(scaled, dtype)
        assert (after == before * np.float32(2.0**exponent)).all() or not exact.all()


def test_offset_scaling_is_sometimes_possible_and_sometimes_not() -> None:
    weights = np.linspace(0.1, 3, 50, dtype=np.float32)
    assert scale_offset(weights, "F32", 20, 1.0)[1].all()
    half = _stored(torch.from_numpy(weights).bfloat16())
    assert not scale_offset(half, "BF16", 20, 1.0)[1].any()
    assert scale_offset(half, "BF16", 3, 1.0)[1].sum() > 0


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("other", ["F16", "BF16"])
def test_exact_after_a_cast_is_what_torch_casts(other: str, offset: float) -> None:
    values = torch.logspace(-30, 17, 4096, base=2.0) * torch.tensor([1.0, -1.0]).repeat(2048)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for exponent in (-5, 3, 20):
            scaled, exact = scale_stored(values.numpy(), "F32", exponent, offset, [other])
            before, after = (v.to(DTYPES[other]).float() + offset for v in (values, torch.from_numpy(scaled)))
            same = torch.ldexp(before, torch.tensor(exponent)) == after
            assert same[torch.from_numpy(exact)].all()
            assert 0 < exact.sum() < len(exact) or offset or other == "BF16"
            assert (exact <= scale_stored(values.numpy(), "F32", exponent, offset)[1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_finiteness_is_read_from_the_bits(dtype: str, bad: float) -> None:
    values = torch.full((1000,), torch.finfo(DTYPES[dtype]).max, dtype=DTYPES[dtype])
    values[::2] *= -1
    assert all_finite(_stored(values), dtype)
    values[777] = bad
    assert not all_finite(_stored(values), dtype)


@pytest.mark.parametrize(
    ("text", "value"), [("2^20", 2.0**20), ("2**3", 8.0), ("1e4", 1e4), (" 1024 ", 1024.0), ("1.5", 1.5)]
)
def test_multipliers_are_read_as_typed(text: str, value: float) -> None:
    assert parse_multiplier(text) == value


@pytest.mark.parametrize("text", ["", "2^", "two", "nan", "inf", "1", "0", "-4", "2^9999", "2^-3"])
def test_other_multipliers_are_refused(text: str) -> None:
    with pytest.raises(PlanError, match="`multiplier` must be a finite number above 1"):
        parse_multiplier(text)


def test_a_multiplier_between_powers_of_two_names_both_neighbours() -> None:
    with pytest.raises(PlanError, match=r"2\^13 \(= 8,192\) and 2\^14 \(= 16,384\) fit"):
        exponent_of(1e4)


@pytest.mark.parametrize("power", [1, 2, 10, 20, 60, 1000])
def test_a_power_of_two_is_its_exponent(power: int) -> None:
    assert exponent_of(2.0**power) == power
    with pytest.raises(PlanError, match="must be a power of two"):
        exponent_of(1.5 * 2.0**power)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e4, "10000"), (1.5, "1.5"), (123456.0, "123456"), (1e20, "1e+20"), (1 / 3 + 1, "1.3333333333333333")],
)
def test_a_multiplier_is_written_as_short_as_it_can_be_read_back(value: float, text: str) -> None:
    assert format_multiplier(value) == text
    assert parse_multiplier(text) == value


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_is_to_the_nearest_and_halves_to_even(dtype: str) -> None:
    kind = DTYPES[dtype]
    grid = torch.arange(1.0, 1.0 + 9 * torch.finfo(kind).eps, torch.finfo(kind).eps, dtype=torch.float64)
    halves = (grid[1:] + grid[:-1]) / 2 if dtype != "F64" else grid
    near = torch.cat([grid, halves, halves * (1 + 2.0**-20), halves * (1 - 2.0**-20), -halves])
    found = _round_to(near.numpy(), dtype)
    assert found.dtype == _stored(torch.zeros(1, dtype=kind)).dtype
    assert np.array_equal(found, _stored(near.to(kind)))


def test_finiteness_of_float32_is_read_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "isfinite", lambda _: pytest.fail("a boolean copy of gigabytes"))
    assert all_finite(np.ones(8, np.float32), "F32")
    assert all_finite(np.ones(8, np.uint16), "BF16")
