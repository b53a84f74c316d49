"""Theorem 19, Lemma 22 and Theorem 24 on 10,000 random instances each; where they are tight; and without the angle."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from random_matrices import EPS, chains, rounding
from torch import Tensor

from specdef.errors import SpecdefError
from specdef.theory import (
    Form,
    hessian_lower_bound,
    principal_angle_cosine,
    product_lower_bound,
    triple_lower_bound,
)

FORMS: tuple[Form, ...] = ("left", "right", "transposed")


def scale_of(*factors: Tensor) -> Tensor:
    return torch.stack([torch.linalg.matrix_norm(f, ord=2) for f in factors]).prod(0)


def orthogonal(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]


def test_product_bound_holds_for_every_pair_of_indices() -> None:
    for a, b in chains(2, seed=10):
        actual = torch.linalg.svdvals(a @ b)
        slack = rounding(scale_of(a, b), max(*a.shape[1:], b.shape[2]))
        for k in range(1, min(*a.shape[1:], b.shape[2]) + 1):
            best = product_lower_bound(a, b, k)
            assert (best <= actual[:, k - 1] + slack).all()
            for r in range(k, min(a.shape[1:]) + 1):
                bound = product_lower_bound(a, b, k, r)
                assert (bound <= actual[:, k - 1] + slack).all()
                assert (bound <= best + slack).all()  # the supremum contains it


def test_product_bound_without_the_angle_fails() -> None:
    violated = 0
    for a, b in chains(2, seed=10):
        s_a, s_b = torch.linalg.svdvals(a), torch.linalg.svdvals(b)
        slack = rounding(scale_of(a, b), 6)
        violated += int((s_a[:, 0] * s_b[:, 0] > torch.linalg.svdvals(a @ b)[:, 0] + slack).sum())
    assert violated > 1000


def test_product_bound_with_the_wrong_subspaces_fails() -> None:
    """Left vectors of A in place of right ones."""
    violated = 0
    for a, b in chains(2, seed=11):
        if a.shape[1] == a.shape[2]:
            wrong = principal_angle_cosine(a.mT, b, 1, 1)
            bound = wrong * torch.linalg.svdvals(a)[:, 0] * torch.linalg.svdvals(b)[:, 0]
            violated += int((bound > torch.linalg.svdvals(a @ b)[:, 0] + rounding(scale_of(a, b), 6)).sum())
    assert violated > 10


def test_product_bound_is_tight_for_aligned_factors() -> None:
    u, q, v = orthogonal(5, 0), orthogonal(5, 1), orthogonal(5, 2)
    s_a = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]).double()
    s_b = torch.tensor([9.0, 7.0, 5.0, 3.0, 2.0]).double()
    a, b = u @ torch.diag(s_a) @ q.T, q @ torch.diag(s_b) @ v.T
    actual = torch.linalg.svdvals(a @ b)
    for k in range(1, 6):
        assert abs(product_lower_bound(a, b, k, k) - actual[k - 1]) <= 1e-10 * actual[k - 1]
        assert abs(product_lower_bound(a, b, k) - actual[k - 1]) <= 1e-10 * actual[k - 1]


def test_product_bound_is_tight_at_every_angle_for_a_projection() -> None:
    theta = torch.linspace(0, torch.pi / 2, 50, dtype=torch.float64)
    b = torch.stack([theta.cos(), theta.sin()], -1).unsqueeze(-1)
    a = torch.tensor([[4.0, 0.0], [0.0, 0.0]]).double().expand(50, 2, 2)  # rank 1: the other direction is lost
    torch.testing.assert_close(product_lower_bound(a, b, 1, 1), 4 * theta.cos(), rtol=0, atol=64 * EPS)
    torch.testing.assert_close(product_lower_bound(a, b, 1), torch.linalg.svdvals(a @ b)[:, 0], rtol=0, atol=64 * EPS)


def test_supremum_is_the_maximum_over_r_and_later_values_add_nothing() -> None:
    """Remark 21: sigma_k(AB) >= sigma_j(AB) for j >= k is true and never helps."""
    improved = 0
    for a, b in chains(2, seed=12):
        short, limit = min(a.shape[1:]), min(*a.shape[1:], b.shape[2])
        bounds = {(r, j): product_lower_bound(a, b, j, r) for j in range(1, limit + 1) for r in range(j, short + 1)}
        slack = rounding(scale_of(a, b), 6)
        for k in range(1, limit + 1):
            fixed = torch.stack([bounds[r, k] for r in range(k, short + 1)])
            assert ((product_lower_bound(a, b, k) - fixed.amax(0)).abs() <= slack).all()
            improved += int((fixed.amax(0) > fixed[0] + slack).sum())  # r = k is not always the best
            wider = torch.stack([bound for (_, j), bound in bounds.items() if j >= k]).amax(0)
            assert (wider <= fixed.amax(0) + slack).all()
    assert improved > 1000


@pytest.mark.parametrize("form", FORMS)
def test_triple_bound_holds(form: Form) -> None:
    for a, b, c in chains(3, seed=20):
        actual = torch.linalg.svdvals(a @ b @ c)
        sides = (*a.shape[1:], *c.shape[1:])
        slack = rounding(scale_of(a, b, c), max(sides))
        for k in range(1, min(sides) + 1):
            bound = triple_lower_bound(a, b, c, k, form)
            assert (bound <= actual[:, k - 1] + slack).all()


@pytest.mark.parametrize("form", FORMS)
def test_triple_bound_holds_for_every_fixed_index(form: Form) -> None:
    for a, b, c in chains(3, seed=21):
        actual = torch.linalg.svdvals(a @ b @ c)[:, 0]
        outer = c if form == "transposed" else a
        slack = rounding(scale_of(a, b, c), 6)
        best = triple_lower_bound(a, b, c, 1, form)
        for r, t in product(range(1, min(outer.shape[1:]) + 1), range(1, min(b.shape[1:]) + 1)):
            if form == "right" or t <= r:
                bound = triple_lower_bound(a, b, c, 1, form, r, t)
                assert (bound <= actual + slack).all()
                assert (bound <= best + slack).all()


def test_forms_differ_and_transposition_is_what_it_says() -> None:
    generator = torch.Generator().manual_seed(5)
    a, b, c = (torch.randn(50, 3, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    left, right, transposed = (triple_lower_bound(a, b, c, 2, form) for form in FORMS)
    torch.testing.assert_close(transposed, triple_lower_bound(c.mT, b.mT, a.mT, 2))
    assert not torch.allclose(left, right)
    assert not torch.allclose(left, transposed)


def test_triple_bound_without_its_angles_fails() -> None:
    violated = 0
    for a, b, c in chains(3, seed=22):
        wrong = torch.linalg.svdvals(a)[:, 0] * torch.linalg.svdvals(b)[:, 0] * torch.linalg.svdvals(c)[:, 0]
        violated += int((wrong > torch.linalg.svdvals(a @ b @ c)[:, 0] + rounding(wrong, 6)).sum())
    assert violated > 1000


@pytest.mark.parametrize("form", FORMS)
def test_triple_bound_is_tight_for_aligned_factors(form: Form) -> None:
    p, q, u, v = (orthogonal(4, seed) for seed in range(4))
    s = torch.tensor([4.0, 3.0, 2.0, 1.0]).double()
    a, b, c = u @ torch.diag(s) @ p.T, p @ torch.diag(2 * s) @ q.T, q @ torch.diag(3 * s) @ v.T
    for k in range(1, 5):
        expected = 6 * s[k - 1] ** 3
        assert abs(triple_lower_bound(a, b, c, k, form, k, k) - expected) <= 1e-10 * expected


def test_hessian_bound_holds_for_a_block_anywhere_in_a_symmetric_matrix() -> None:
    generator = torch.Generator().manual_seed(30)
    for a, w, b in chains(3, seed=30):
        block = a @ w @ b
        rows, columns = block.shape[1:]
        rest = [torch.randn(len(a), n, n, generator=generator, dtype=torch.float64) for n in (rows, columns)]
        scale = 10 ** (6 * torch.rand(len(a), 1, 1, generator=generator, dtype=torch.float64) - 4)
        upper = torch.cat([scale * (rest[0] + rest[0].mT), block], dim=-1)
        h = torch.cat([upper, torch.cat([block.mT, scale * (rest[1] + rest[1].mT)], dim=-1)], dim=-2)
        slack = rounding(scale_of(a, w, b), 6) + rounding(scale_of(h), 12)
        assert (hessian_lower_bound(a, w, b) <= torch.linalg.svdvals(h)[:, 0] + slack).all()


def test_gradient_of_the_hessian_bound() -> None:
    generator = torch.Generator().manual_seed(2)
    a, w, b = (torch.randn(3, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(hessian_lower_bound, (a, w, b))
    assert torch.autograd.gradcheck(lambda a, w: product_lower_bound(a, w, 2), (a, w))


def test_float32_input_is_computed_in_float64() -> None:
    assert product_lower_bound(torch.eye(2), torch.eye(2), 1).dtype == torch.float64


EYE = torch.eye(3)


@pytest.mark.parametrize(
    ("b", "k", "r", "message"),
    [
        (
            EYE,
            0,
            None,
            r"`k` must be between 1 and 3, the shortest side of \[3, 3\] and \[3, 3\]; got 0. Choose one in",
        ),
        (EYE, 2, 1, r"`r` must be between 2 and 3, from k to the short side of a \[3, 3\]; got 1. Choose one in that"),
        (EYE[:2], 1, None, r"`a` and `b` must be conformable matrices; got \[3, 3\] and \[2, 3\]. Columns of one"),
    ],
)
def test_messages_of_the_product(b: Tensor, k: int, r: int | None, message: str) -> None:
    with pytest.raises(SpecdefError, match=message):
        product_lower_bound.__wrapped__(EYE, b, k, r)


@pytest.mark.parametrize(
    ("b", "k", "options", "message"),
    [
        (EYE[:2], 1, {}, r"`a`, `b` and `c` must be conformable matrices; got \[3, 3\] and \[2, 3\] and \[3, 3\]. Col"),
        (EYE, 4, {}, "`k` must be between 1 and 3, the shortest side of the three factors; got 4. Choose one in"),
        (EYE, 1, {"t": 4}, "`t` must be between 1 and 3, from k to the short side of b and of the outer factor; got 4"),
        (EYE, 1, {"t": 4, "form": "right"}, "`t` must be between 1 and 3, from k to the short side of b; got 4. Cho"),
        (EYE, 1, {"r": 1, "t": 2}, "`r` must be between 2 and 3, from t to the short side of the outer factor; got 1"),
        (EYE, 2, {"r": 1, "form": "right"}, "`r` must be between 2 and 3, from k to the short side of the outer fac"),
        (EYE, 1, {"form": "up"}, "`form` must be left, right or transposed; got 'up'. The default is left."),
    ],
)
def test_messages_of_the_triple(b: Tensor, k: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecdefError, match=message):
        triple_lower_bound.__wrapped__(EYE, b, EYE, k, **options)
