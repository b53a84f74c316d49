"""Top-k SVD against torch.linalg.svd in float64, on spectra that trip an iteration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from specdef.errors import SpecdefError
from specdef.linalg import svd
from specdef.linalg.svd import residual_of, top_k_svd

EPS = torch.finfo(torch.float64).eps


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small only wait for their second thread, very long where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def with_spectrum(m: int, n: int, s: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    u = torch.linalg.qr(torch.randn(m, len(s), generator=generator, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(n, len(s), generator=generator, dtype=torch.float64))[0]
    return ((u * s.double()) @ v.T).to(dtype)


def slow(r: int) -> Tensor:
    return torch.arange(1, r + 1, dtype=torch.float64) ** -0.15


SPECTRA = {
    "slow power law": slow(420),
    "outliers": slow(420) * 0.1 + torch.exp(-torch.arange(420) / 2.0),
    "all equal": torch.ones(420),
    "thirty copies of the largest": torch.cat([torch.full((30,), 5.0), torch.linspace(1, 0.9, 390)]),
    "rank 10": torch.cat([torch.linspace(3, 1, 10), torch.zeros(410)]),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("shape", [(420, 900), (900, 420)])
def test_matches_the_full_decomposition(name: str, shape: tuple[int, int]) -> None:
    a = with_spectrum(*shape, SPECTRA[name])
    top = top_k_svd(a, 25)
    reference = torch.linalg.svdvals(a.double())[:25]
    assert top.method == "lanczos"
    assert top.residual <= 1e-6
    # Weyl for the two-sided residual: every value found is within ||residual|| of a true one.
    torch.testing.assert_close(top.s, reference, rtol=0, atol=1e-6 * reference[0].item())


def test_residual_is_that_of_the_factors_returned() -> None:
    a = with_spectrum(420, 900, slow(420))
    top = top_k_svd(a, 25)
    wide = a.double()
    forward = torch.linalg.norm(wide @ top.vh.T - top.u * top.s)
    backward = torch.linalg.norm(wide.T @ top.u - top.vh.T * top.s)
    assert top.residual == pytest.approx(max(forward, backward).item() / top.s[0].item(), rel=1e-6)
    torch.testing.assert_close(top.u.T @ top.u, torch.eye(25, dtype=torch.float64), rtol=0, atol=420 * EPS)
    torch.testing.assert_close(top.vh @ top.vh.T, torch.eye(25, dtype=torch.float64), rtol=0, atol=900 * EPS)


def test_residual_sees_a_wrong_subspace() -> None:
    a = with_spectrum(420, 900, slow(420))
    u, s, vh = torch.linalg.svd(a.double(), full_matrices=False)
    assert residual_of(a, u[:, :5], s[:5], vh[:5]) < 1e-12
    assert residual_of(a, u[:, :5], s[:5] * 1.001, vh[:5]) > 1e-4
    rotated = vh[:5] + 1e-3 * vh[100:105]
    assert residual_of(a, u[:, :5], s[:5], rotated) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_guard_finds_a_larger_value_the_iteration_missed(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = with_spectrum(420, 900, slow(420), dtype)
    _, s, vh = torch.linalg.svd(a.double(), full_matrices=False)
    real, calls = svd._lanczos, []

    def misses_the_largest_once(*arguments: Any) -> Iterator[tuple[Tensor, float, int]]:
        calls.append(arguments)
        return iter([(vh[1:34].T, 0.0, 1)]) if len(calls) == 1 else real(*arguments)

    monkeypatch.setattr(svd, "_lanczos", misses_the_largest_once)
    torch.testing.assert_close(top_k_svd(a, 25).s, s[:25], rtol=0, atol=1e-6)
    assert len(calls) == 2
    calls.clear()
    monkeypatch.setattr(svd, "_larger_than", lambda a, *_: a.new_empty(a.shape[0], 0))
    blind = top_k_svd(a, 25)
    assert blind.residual <= 1e-6  # a small residual alone proves nothing: these are the triplets 2 to 26
    torch.testing.assert_close(blind.s, s[1:26], rtol=0, atol=1e-6)


def test_a_tighter_tolerance_is_reached_in_float64() -> None:
    a = with_spectrum(420, 900, slow(420), torch.float64)
    top = top_k_svd(a, 25, tol=1e-11)
    assert top.method == "lanczos"
    assert top.residual <= 1e-11


def test_too_few_passes_end_in_the_full_decomposition() -> None:
    top = top_k_svd(with_spectrum(420, 900, slow(420)), 25, max_iterations=1)
    assert top.method == "full"
    assert top.residual < 1e-12


def test_a_pass_is_a_product_with_each_side(monkeypatch: pytest.MonkeyPatch) -> None:
    a, real, calls = with_spectrum(420, 900, slow(420)), svd._orthonormalize, []
    monkeypatch.setattr(svd, "_orthonormalize", lambda *blocks: calls.append(blocks) or real(*blocks))
    cycles = svd._lanczos(a, 25, torch.empty(420, 0), torch.Generator().manual_seed(0))
    passes = [next(cycles)[2] for _ in range(3)]
    assert 1 + 2 * sum(passes) == len(calls)


def test_the_iteration_goes_on_until_its_estimate_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarted too early it finds the same, at a Rayleigh-Ritz step in float64 a cycle."""
    real, calls = svd._rayleigh_ritz, []
    monkeypatch.setattr(svd, "_rayleigh_ritz", lambda *found: calls.append(found) or real(*found))
    assert top_k_svd(with_spectrum(420, 900, slow(420)), 25).residual <= 1e-6
    assert len(calls) == 1


def test_same_matrix_same_bits() -> None:
    a = with_spectrum(420, 900, slow(420))
    first, second = top_k_svd(a, 5), top_k_svd(a, 5)
    assert torch.equal(first.u, second.u)
    assert torch.equal(first.s, second.s)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_input_is_widened(dtype: torch.dtype) -> None:
    a = with_spectrum(420, 500, slow(420)).to(dtype)
    torch.testing.assert_close(top_k_svd(a, 3).s, torch.linalg.svdvals(a.double())[:3], rtol=1e-6, atol=0)


@pytest.mark.parametrize("exponent", [-100, 100])
def test_extreme_magnitudes_do_not_overflow(exponent: int) -> None:
    a = torch.ldexp(with_spectrum(420, 500, slow(420)), torch.tensor(exponent))
    top = top_k_svd(a, 5)
    assert top.method == "lanczos"
    torch.testing.assert_close(top.s, torch.linalg.svdvals(a.double())[:5], rtol=1e-6, atol=0)


def test_zero_matrix() -> None:
    top = top_k_svd(torch.zeros(400, 500), 3)
    assert top.s.tolist() == [0.0, 0.0, 0.0]
    assert top.residual == 0.0
    u = torch.eye(400)[:, :3]
    assert residual_of(torch.ones(400, 500), u, torch.zeros(3), torch.eye(500)[:3]) == math.inf


@settings(max_examples=25, deadline=None)
@given(m=st.integers(1, 40), n=st.integers(1, 40), seed=st.integers(0, 2**16), data=st.data())
def test_small_matrices_of_any_shape(m: int, n: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, min(m, n)))
    a = torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    top = top_k_svd(a, k)
    assert (top.u.shape, top.s.shape, top.vh.shape) == ((m, k), (k,), (k, n))
    torch.testing.assert_close(top.s, torch.linalg.svdvals(a)[:k], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("a", "k", "options", "message"),
    [
        (torch.eye(4), 0, {}, r"`k` must be between 1 and 4, the short side of \[4, 4\]; got 0"),
        (torch.eye(4), 5, {}, "got 5. Lower it"),
        (torch.ones(0, 4), 1, {}, r"non-empty matrix; got shape \[0, 4\]"),
        (torch.tensor([[1.0, math.nan]]), 1, {}, "`a` must hold finite numbers; got NaN or inf"),
        (torch.tensor([[1.0, math.inf]]), 1, {}, "`a` must hold finite numbers; got NaN or inf"),
        (torch.eye(4), 1, {"tol": 0.0}, "`tol` must be positive; got 0.0"),
        (torch.eye(4), 1, {"max_iterations": 0}, "`max_iterations` must be at least 1; got 0"),
    ],
)
def test_bad_arguments(a: Tensor, k: int, options: dict[str, float], message: str) -> None:
    with pytest.raises(SpecdefError, match=message):
        top_k_svd(a, k, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("m", "n"), [(12, 20), (20, 12), (300, 420)])
def test_the_gradient_of_each_value_is_its_u_v(m: int, n: int) -> None:
    """Against float64 autograd through the full decomposition; 300 x 420 goes through the iteration."""
    spectrum = torch.linspace(9, 1, min(m, n), dtype=torch.float64)
    a = with_spectrum(m, n, spectrum, torch.float64)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    ours, theirs = a.clone().requires_grad_(), a.clone().requires_grad_()
    values = svd.top_k_values(ours, 3)
    torch.testing.assert_close(values.detach(), spectrum[:3], rtol=1e-9, atol=0)
    (values @ weights).backward()
    (torch.linalg.svdvals(theirs)[:3] @ weights).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("m", "n"), [(12, 20), (300, 420)])
def test_a_whole_group_of_equal_values_has_the_gradient_of_its_sum(m: int, n: int) -> None:
    """Single gradients depend on the basis; their sum is what small changes of the matrix show."""
    rest = torch.linspace(3, 1, min(m, n) - 4, dtype=torch.float64)
    a = with_spectrum(m, n, torch.cat([torch.full((4,), 7.0, dtype=torch.float64), rest]), torch.float64)
    ours = a.clone().requires_grad_()
    svd.top_k_values(ours, 4).sum().backward()
    assert ours.grad is not None
    u, _, vh = torch.linalg.svd(a, full_matrices=False)
    torch.testing.assert_close(ours.grad, u[:, :4] @ vh[:4], rtol=0, atol=1e-6)
    change = 1e-6 * torch.randn(m, n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    moved = [torch.linalg.svdvals(a + sign * change)[:4].sum() for sign in (1, -1)]
    assert float((ours.grad * change).sum()) == pytest.approx(float(moved[0] - moved[1]) / 2, rel=1e-4)


def test_values_keep_the_dtype_and_refuse_what_the_decomposition_refuses() -> None:
    assert svd.top_k_values(torch.eye(3, dtype=torch.bfloat16), 2).dtype == torch.bfloat16
    with pytest.raises(SpecdefError, match="`k` must be between 1 and 3"):
        svd.top_k_values(torch.eye(3), 4)


@pytest.mark.parametrize("power", [-30, 30])
def test_a_power_of_two_changes_the_values_and_nothing_else(power: int) -> None:
    """Every threshold is relative: not a pass more, not a bit of the vectors otherwise."""
    a = with_spectrum(420, 900, slow(420))
    first, scaled = top_k_svd(a, 9), top_k_svd(torch.ldexp(a, torch.tensor(power)), 9)
    assert torch.equal(scaled.s, torch.ldexp(first.s, torch.tensor(power)))
    assert torch.equal(scaled.vh, first.vh)
    assert (scaled.iterations, scaled.residual, scaled.method) == (first.iterations, first.residual, "lanczos")


def test_a_rough_subspace_is_widened_by_its_residual_until_it_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    a = with_spectrum(420, 900, 10 * SPECTRA["outliers"], torch.float64)
    vh = torch.linalg.svd(a, full_matrices=False)[2]
    noise = torch.randn(900, 13, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rough = vh[:13].T + 1e-4 * noise
    found = [svd._rayleigh_ritz(a, rough, 5, 1e-14, 0)]
    for refinements in (2, 1, 0):
        monkeypatch.setattr(svd, "REFINEMENTS", refinements)
        found.append(svd._rayleigh_ritz(a, rough, 5, 1e-14, 0))
    best, two, one, none = (one.residual for one in found)
    assert none > 1e-4
    assert one < 0.1 * none
    assert two < 0.1 * one
    assert best < 0.1 * two
    assert [one.iterations for one in found] == [4, 2, 1, 0]
    monkeypatch.setattr(svd, "REFINEMENTS", 4)
    assert svd._rayleigh_ritz(a, rough, 5, 2 * two, 0).iterations == 2, "no further than it must"


@pytest.fixture
def iterations(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every iteration that is begun: matrix, start block, and the passes of each cycle it was asked for."""
    real, found = svd._lanczos, list[dict[str, Any]]()

    def recorded(a: Tensor, k: int, start: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, float, int]]:
        found.append({"a": a, "start": start, "cycles": []})
        for basis, bound, done in real(a, k, start, generator):
            found[-1]["cycles"].append(done)
            yield basis, bound, done

    monkeypatch.setattr(svd, "_lanczos", recorded)
    return found


def test_it_iterates_in_float32_where_that_is_enough(iterations: list[dict[str, Any]]) -> None:
    a = with_spectrum(420, 900, slow(420))
    top_k_svd(a, 3)
    top_k_svd(a, 3, tol=1e-5)
    top_k_svd(a, 3, tol=9e-7)
    assert [one["a"].dtype for one in iterations] == [torch.float32, torch.float32, torch.float64]
    assert all(one["start"].shape == (420, 0) for one in iterations)


def test_what_is_not_good_enough_is_where_the_next_iteration_starts(
    iterations: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, real, found = with_spectrum(420, 900, slow(420)), svd._rayleigh_ritz, []

    def rough_at_first(*arguments: Any) -> svd.TopK:
        result = real(*arguments)
        found.append(result if found else dataclasses.replace(result, residual=1e-3))
        return found[-1]

    monkeypatch.setattr(svd, "_rayleigh_ritz", rough_at_first)
    top = top_k_svd(a, 5)
    assert top.residual <= 1e-6
    assert [tuple(one["start"].shape) for one in iterations] == [(420, 0), (420, 5)]
    assert torch.equal(iterations[1]["start"], found[0].u.float())
    assert top.iterations >= sum(sum(one["cycles"]) for one in iterations)


def test_no_cycle_is_begun_when_the_passes_are_spent(iterations: list[dict[str, Any]]) -> None:
    a = with_spectrum(420, 900, slow(420))
    top_k_svd(a, 25)
    ((first, *rest),) = (one["cycles"] for one in iterations)
    assert rest, "more than one cycle is needed"
    top_k_svd(a, 25, max_iterations=first)
    assert iterations[1]["cycles"] == [first]
    top_k_svd(a, 25, max_iterations=first + 1)
    assert iterations[2]["cycles"] == [first, rest[0]]


@pytest.mark.parametrize("power", [0, 100])
def test_the_start_is_drawn_from_the_generator_that_was_given(power: int) -> None:
    a = torch.ldexp(with_spectrum(420, 900, slow(420)), torch.tensor(power))
    one, same, other = (top_k_svd(a, 3, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.vh, same.vh)
    assert not torch.equal(one.vh, other.vh)
    assert torch.equal(top_k_svd(a, 3).vh, top_k_svd(a, 3, generator=torch.Generator().manual_seed(0)).vh)
