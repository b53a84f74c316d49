"""Theorems 49 to 52, (17), (18), (20): where they hold on 10,000 random tensors, and where the printed form fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from random_matrices import EPS, rounding, tensors
from torch import Tensor

from specdef.errors import SpecdefError
from specdef.theory import (
    composite_lower_bound,
    composite_upper_bound,
    inflation_margin,
    t_product,
    tensor_angle_lower_bound,
    tensor_lipschitz_upper_bound,
    tensor_poincare_bounds,
    tensor_product_lower_bound,
    tensor_product_upper_bound,
    tensor_singular_values,
    tensor_sum_upper_bound,
)

SHAPES = [(2, 3, 2, 3), (3, 3, 3, 4), (4, 2, 3, 2), (1, 2, 2, 5), (3, 2, 4, 3)] * 4
"""n1, n2, n4, n3: twenty batches of 500."""


def triples(seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """P, Q and R of the shape of P * Q."""
    generator = torch.Generator().manual_seed(seed)
    for n1, n2, n4, n3 in SHAPES:
        yield (
            tensors((n1, n2, n3), generator),
            tensors((n2, n4, n3), generator),
            0.1 * tensors((n1, n4, n3), generator),
        )


def largest(t: Tensor) -> Tensor:
    """Largest singular value over all Fourier slices, the scale of rounding errors."""
    return torch.linalg.svdvals(torch.fft.fft(t, dim=-1).movedim(-1, -3)).amax((-2, -1))


def cubes(*vectors: list[float]) -> Tensor:
    """Sum of outer cubes."""
    v = torch.tensor(vectors, dtype=torch.float64)
    return torch.einsum("ri,rj,rk->ijk", v, v, v)


def test_poincare_holds_and_deleting_frontal_slices_is_not_allowed() -> None:
    for p, _, _ in triples(0):
        part = p[:, 1:, : max(1, p.shape[2] - 1)] if p.shape[1] > 1 else p
        num_deleted = p.shape[1] + p.shape[2] - part.shape[1] - part.shape[2]
        lower, upper = tensor_poincare_bounds(p, num_deleted)
        values, slack = tensor_singular_values(part), rounding(largest(p), 6).unsqueeze(-1)
        assert (values <= upper[:, : values.shape[1]] + slack).all()
        assert (values >= lower[:, : values.shape[1]] - slack).all()
    t = torch.tensor([[[1.0, 1.0, 0.0, -1.0]]])
    assert tensor_singular_values(t[..., [0, 1, 3]])[0] > 1.03 * tensor_singular_values(t)[0]


def test_poincare_is_tight_and_one_deletion_fewer_fails() -> None:
    t = torch.diag(torch.tensor([4.0, 3.0, 2.0])).double().unsqueeze(-1).expand(3, 3, 2)  # slices 2 t and 0
    lower, upper = tensor_poincare_bounds(t, 2)
    assert (tensor_singular_values(t[:2, :2]) - upper[:2]).abs().max() <= 1e-10
    assert abs(tensor_singular_values(t[2:, 2:])[0] - lower[0]) <= 1e-10
    assert tensor_singular_values(t[2:, 2:])[0] < tensor_poincare_bounds(t, 1)[0][0] - 0.5


def test_sum_holds_is_tight_and_off_by_one_fails() -> None:
    off_by_one = 0
    for p, _, _ in triples(1):
        a, b = p, p.flip(0)
        actual, slack = tensor_singular_values(a + b), rounding(largest(a) + largest(b), 6)
        q = actual.shape[1]
        for i in range(1, q + 1):
            for j in range(1, q + 2 - i):
                bound = tensor_sum_upper_bound(a, b, i, j)
                assert (actual[:, i + j - 2] <= bound + slack).all()
                if j > 1:
                    off_by_one += int((actual[:, i + j - 3] > bound + slack).sum())
        equal = tensor_sum_upper_bound(a, a, 1, 1)
        assert ((tensor_singular_values(a + a)[:, 0] - equal).abs() <= slack).all()
    assert off_by_one > 1000


def test_product_bounds_hold_and_one_side_is_the_papers() -> None:
    for p, q, _ in triples(2):
        actual, slack = tensor_singular_values(t_product(p, q)), rounding(largest(p) * largest(q), 6)
        s_p, s_q = tensor_singular_values(p), torch.linalg.svdvals(torch.fft.fft(q, dim=-1).movedim(-1, -3))
        for i in range(1, min(p.shape[1], p.shape[2], q.shape[2]) + 1):
            upper, lower = tensor_product_upper_bound(p, q, i), tensor_product_lower_bound(p, q, i)
            assert (actual[:, i - 1] <= upper + slack).all()
            assert (upper <= s_p[:, i - 1] * s_q[..., 0].amax(-1) + slack).all()
            assert (actual[:, i - 1] >= lower - slack).all()
            angle = tensor_angle_lower_bound(p, q, i)
            assert (actual[:, i - 1] >= angle - slack).all()


def test_product_bounds_are_tight() -> None:
    p = torch.zeros(2, 2, 3, dtype=torch.float64)
    p[..., 0] = torch.diag(torch.tensor([3.0, 1.0]))
    q = 2 * p.clone()
    q[..., 0] = 2 * torch.eye(2)
    for i, expected in ((1, 6.0), (2, 2.0)):
        for bound in (tensor_product_upper_bound, tensor_product_lower_bound, tensor_angle_lower_bound):
            assert abs(bound(p, q, i) - expected) <= 1e-10 * expected
    assert tensor_singular_values(t_product(p, q)).tolist() == pytest.approx([6.0, 2.0], rel=1e-10)


def test_printed_product_bound_fails_with_unitary_slices() -> None:
    """(16) under the convention Appendix J adopts: even the identity breaks it, by sqrt(n3)."""
    eye = torch.zeros(2, 2, 4, dtype=torch.float64)
    eye[..., 0] = torch.eye(2)
    unitary = torch.linalg.svdvals(torch.fft.fft(eye, dim=-1, norm="ortho").movedim(-1, 0)).amax()
    printed = tensor_singular_values(eye)[0] * unitary
    assert abs(tensor_singular_values(t_product(eye, eye))[0] / printed - 2) <= 16 * EPS
    mean = torch.linalg.svdvals(torch.fft.fft(eye, dim=-1, norm="ortho").movedim(-1, 0)).mean(0)[0]
    assert mean > mean * unitary  # nor with values averaged over unitary slices


def test_product_bound_with_the_mean_in_place_of_the_maximum_fails() -> None:
    violated = 0
    for p, q, _ in triples(2):
        wrong = tensor_singular_values(p)[:, 0] * tensor_singular_values(q)[:, 0]
        slack = rounding(largest(p) * largest(q), 6)
        violated += int((tensor_singular_values(t_product(p, q))[:, 0] > wrong + slack).sum())
    assert violated > 1000


def test_full_column_rank_of_the_second_factor_is_not_enough() -> None:
    """Remark 54 asks for it; P * Q can still vanish. The angle bound knows when it does not."""
    p, q = torch.zeros(2, 2, 3, dtype=torch.float64), torch.zeros(2, 1, 3, dtype=torch.float64)
    p[0, 0, 0], q[1, 0, 0] = 1.0, 1.0
    printed = (
        tensor_singular_values(p)[0] * torch.linalg.svdvals(torch.fft.fft(q, dim=-1).movedim(-1, 0))[..., -1].min()
    )
    assert abs(printed - 1) <= 16 * EPS
    assert tensor_singular_values(t_product(p, q))[0] <= 16 * EPS
    assert tensor_product_lower_bound(p, q, 1) == 0
    assert abs(tensor_angle_lower_bound(p, q.flip(0), 1) - 1) <= 16 * EPS


def test_composite_bounds_hold_and_without_the_remainder_fail() -> None:
    above = below = 0
    for p, q, r in triples(3):
        t = t_product(p, q) + r
        actual = tensor_singular_values(t)
        slack = rounding(largest(p) * largest(q) + largest(r), 6)
        limit = min(p.shape[1], p.shape[2], q.shape[2])
        for i in range(1, limit + 1):
            for j in range(1, actual.shape[1] + 2 - i):
                assert (actual[:, i + j - 2] <= composite_upper_bound(p, q, r, i, j) + slack).all()
            assert (actual[:, i - 1] >= composite_lower_bound(p, q, r, i) - slack).all()
            assert (actual[:, i - 1] >= composite_lower_bound(p, q, r, i, angles=True) - slack).all()
        above += int((actual[:, 0] > tensor_product_upper_bound(p, q, 1) + slack).sum())
        below += int((actual[:, 0] < tensor_angle_lower_bound(p, q, 1) - slack).sum())
    assert above > 100
    assert below > 100


def test_composite_bounds_are_tight() -> None:
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    assert abs(composite_upper_bound(2 * one, 3 * one, one) - tensor_singular_values(7 * one)[0]) <= 1e-10
    assert abs(composite_lower_bound(2 * one, 3 * one, -one) - tensor_singular_values(5 * one)[0]) <= 1e-10


def operator_norm(t: Tensor, directions: Tensor) -> Tensor:
    """max over the directions u of ||T(., ., u)||_2."""
    return torch.linalg.svdvals(torch.einsum("...ijk,dk->...dij", t, directions))[..., 0].amax(-1)


def test_lipschitz_bound_holds_on_symmetric_tensors() -> None:
    """L2 from a grid of directions with covering radius `step`: L2 (1 - step) <= the maximum over the grid."""
    generator = torch.Generator().manual_seed(4)
    for n in (2, 3):
        cube = torch.randn(5000, n, n, n, generator=generator, dtype=torch.float64)
        t = sum(cube.permute(0, *order) for order in [(1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)])
        angle = torch.linspace(0, math.pi, 17, dtype=torch.float64)
        if n == 2:
            grid, step = torch.stack([angle.cos(), angle.sin()], -1), math.pi / 32
        else:
            polar, around = torch.meshgrid(angle[:9], torch.linspace(0, 2 * math.pi, 33).double(), indexing="ij")
            parts = [polar.sin() * around.cos(), polar.sin() * around.sin(), polar.cos()]
            grid, step = torch.stack(parts, -1).flatten(0, 1), math.pi / 32 * math.sqrt(2)
        l2 = operator_norm(t, grid) / (1 - step)
        assert (tensor_singular_values(t)[:, 0] <= tensor_lipschitz_upper_bound(l2, n)).all()


def test_printed_lipschitz_bound_fails_and_the_corrected_one_is_sharp() -> None:
    """Theorem 49 prints sigma_1(T) <= L2."""
    half = 0.5**0.5
    two = cubes([half, half], [half, -half])
    angle = torch.linspace(0, math.pi, 721, dtype=torch.float64)
    l2 = operator_norm(two, torch.stack([angle.cos(), angle.sin()], -1))
    assert abs(l2 - 1) <= 16 * EPS
    assert abs(tensor_singular_values(two)[0] - math.sqrt(2)) <= 1e-10
    assert abs(tensor_lipschitz_upper_bound(l2, 2) - math.sqrt(2)) <= 1e-10


def test_the_complex_step_of_the_lipschitz_bound_fails_in_either_convention() -> None:
    """f0^3 plus the harmonic cubic of the plane of the complex Fourier vectors: L2 = 1, unitary mean above 1."""
    f0 = torch.ones(3, dtype=torch.float64) / math.sqrt(3)
    index = torch.arange(3, dtype=torch.float64)
    p, q = (math.sqrt(2 / 3) * g(2 * math.pi * index / 3) for g in (torch.cos, torch.sin))
    terms = [(1.0, (f0, f0, f0)), (1.0, (p, p, p)), (-1.0, (p, q, q)), (-1.0, (q, p, q)), (-1.0, (q, q, p))]
    t = torch.stack([sign * torch.einsum("i,j,k->ijk", *vectors) for sign, vectors in terms]).sum(0)
    directions = torch.randn(20000, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    l2 = operator_norm(t, directions / directions.norm(dim=-1, keepdim=True))
    assert l2 <= 1 + 16 * EPS  # block diagonal: max(|u0|, |(up, uq)|), at most 1
    unitary = torch.linalg.svdvals(torch.fft.fft(t, dim=-1, norm="ortho").movedim(-1, 0))[..., 0].mean()
    assert unitary > 1.27
    expected = tensor_lipschitz_upper_bound(1.0, 3)
    assert abs(tensor_singular_values(t)[0] - expected) <= 1e-10 * expected


def test_condition_20_bounds_from_below_but_promises_no_increase() -> None:
    def f_diagonal(x: float, y: float) -> Tensor:
        return torch.diag(torch.tensor([x, y], dtype=torch.float64)).unsqueeze(-1)

    p, q, r = f_diagonal(1.0, -0.3), f_diagonal(1.0, 1.0), f_diagonal(-0.9, 0.9)
    assert abs(inflation_margin(p, q, r) - 0.1) <= 16 * EPS
    before, after = (tensor_singular_values(t_product(c * p, q) + r)[0] for c in (1.0, 1.3))
    assert after < before - 0.05
    assert inflation_margin(0 * p, q, r) == -math.inf


def test_margin_above_one_half_makes_scaling_increase() -> None:
    checked = 0
    for p, q, r in triples(6):
        delta = inflation_margin(p, q, r)
        lower = tensor_product_lower_bound(p, q, 1)
        values = [tensor_singular_values(t_product(c * p, q) + r)[:, 0] for c in (1.0, 1.5, 4.0)]
        slack = rounding(4 * largest(p) * largest(q) + largest(r), 6)
        finite = delta > 0
        for c, value in zip((1.0, 1.5, 4.0), values, strict=True):
            assert (value >= (c - 1 + delta) * lower - slack)[finite].all()
        sure = delta > 0.5
        assert (values[1] > values[0] - slack)[sure].all()
        assert (values[2] > values[1] - slack)[sure].all()
        checked += int(sure.sum())
    assert checked > 500


CUBE = torch.ones(2, 2, 2)


@pytest.mark.parametrize(
    ("bound", "arguments", "message"),
    [
        (tensor_lipschitz_upper_bound, (0.0, 2), "`hessian_lipschitz` must be positive and finite; got 0.0. Check its"),
        (tensor_lipschitz_upper_bound, (1.0, 0), "`n3` must be between 1 and 2147483648, a length; got 0. Choose one"),
        (tensor_poincare_bounds, (CUBE, 3), "`num_deleted` must be between 0 and 2, what 2 x 2 can lose; got 3. Choos"),
        (tensor_sum_upper_bound, (CUBE, CUBE[:1], 1, 1), r"`b` must have the shape of a, \[2, 2, 2\]; got \[1, 2, 2\]"),
        (tensor_sum_upper_bound, (CUBE, CUBE, 1, 3), r"`j` must be between 1 and 2, so that i \+ j - 1 stays within"),
        (tensor_product_upper_bound, (CUBE, CUBE, 3), "`i` must be between 1 and 2, the shortest of n1, n2 and n4; go"),
        (tensor_product_lower_bound, (CUBE, CUBE[:1], 1), r"`a` and `b` must be conformable matrices; got \[2, 2\] an"),
        (tensor_angle_lower_bound, (CUBE, CUBE, 0), "`i` must be between 1 and 2, the shortest of n1, n2 and n4; got "),
        (composite_upper_bound, (CUBE, CUBE, CUBE, 2, 2), r"`j` must be between 1 and 1, so that i \+ j - 1 stays wit"),
        (composite_lower_bound, (CUBE, CUBE, CUBE[:1]), r"`r` must have the shape of P \* Q, \[2, 2, 2\]; got \[1, 2,"),
    ],
)
def test_messages(bound: Callable[..., Any], arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SpecdefError, match=message):
        getattr(bound, "__wrapped__", bound)(*arguments)
