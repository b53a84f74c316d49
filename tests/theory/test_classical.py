"""Classical inequalities: 10,000 random instances each, tight cases, and the variants that fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_matrices import BATCH, NUM_BATCHES, SIZES, chains, matrices, rounding
from torch import Tensor

from specdef.errors import SpecdefError
from specdef.theory import (
    block_sum_upper_bound,
    kronecker_upper_bound,
    outer_product_upper_bound,
    poincare_bounds,
    product_lower_bound,
    sum_lower_bound,
    two_layer_loss_bound,
    weyl_product_lower_bound,
    weyl_product_upper_bound,
    weyl_sum_lower_bound,
    weyl_sum_upper_bound,
)

norm = torch.linalg.svdvals


def sigma(matrix: Tensor, i: int) -> Tensor:
    return norm(matrix)[..., i - 1]


def pairs(seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(NUM_BATCHES):
        m, n = (SIZES[i] for i in torch.randint(len(SIZES), (2,), generator=generator).tolist())
        found.append((matrices((m, n), generator), matrices((m, n), generator)))
    return found


def test_poincare_holds_for_any_rows_and_columns_deleted() -> None:
    generator = torch.Generator().manual_seed(0)
    off_by_one = 0
    for a, _ in pairs(1):
        m, n = a.shape[1:]
        rows = torch.randperm(m, generator=generator)[: int(torch.randint(1, m + 1, (1,), generator=generator))]
        columns = torch.randperm(n, generator=generator)[: int(torch.randint(1, n + 1, (1,), generator=generator))]
        part = norm(a[:, rows][:, :, columns])
        num_deleted = m + n - len(rows) - len(columns)
        lower, upper = poincare_bounds(a, num_deleted)
        slack = rounding(sigma(a, 1), 6).unsqueeze(-1)
        assert (part <= upper[:, : part.shape[1]] + slack).all()
        assert (part >= lower[:, : part.shape[1]] - slack).all()
        if num_deleted:  # one deletion fewer than there were
            wrong = poincare_bounds(a, num_deleted - 1)[0][:, : part.shape[1]]
            off_by_one += int((part < wrong - slack).any(-1).sum())
    assert off_by_one > 500


def test_poincare_is_tight() -> None:
    a = torch.diag(torch.tensor([4.0, 3.0, 2.0])).double()
    lower, upper = poincare_bounds(a, 2)
    assert (norm(a[:2, :2]) - upper[:2]).abs().max() <= 1e-10 * 4
    assert abs(norm(a[2:, 2:])[0] - lower[0]) <= 1e-10 * 4


def test_weyl_sum_holds_both_ways_and_off_by_one_fails() -> None:
    off_by_one = 0
    for a, b in pairs(2):
        actual = norm(a + b)
        slack = rounding(sigma(a, 1) + sigma(b, 1), 6)
        q = actual.shape[1]
        for i in range(1, q + 1):
            for j in range(1, q + 2 - i):
                bound = weyl_sum_upper_bound(a, b, i, j)
                assert (actual[:, i + j - 2] <= bound + slack).all()
                assert (actual[:, i - 1] >= weyl_sum_lower_bound(a, b, i, j) - slack).all()
                if j > 1:
                    off_by_one += int((actual[:, i + j - 3] > bound + slack).sum())
    assert off_by_one > 1000


def test_weyl_sum_is_tight() -> None:
    a, b = torch.diag(torch.tensor([5.0, 3.0, 1.0])).double(), torch.diag(torch.tensor([2.0, 2.0, 2.0])).double()
    for i in range(1, 4):
        assert abs(sigma(a + b, i) - weyl_sum_upper_bound(a, b, i, 1)) <= 1e-10 * 7
        assert abs(sigma(a - b, 1) - weyl_sum_lower_bound(a, -b, 1, 1)) <= 1e-10 * 7


def test_weyl_product_holds_both_ways_and_off_by_one_fails() -> None:
    off_by_one = too_high = 0
    for a, b in chains(2, seed=4):
        actual = norm(a @ b)
        slack = rounding(sigma(a, 1) * sigma(b, 1), 6)
        n, limit = a.shape[2], min(*a.shape[1:], b.shape[2])
        for i in range(1, limit + 1):
            for j in range(1, limit + 2 - i):
                bound = weyl_product_upper_bound(a, b, i, j)
                assert (actual[:, i + j - 2] <= bound + slack).all()
                if j > 1:
                    off_by_one += int((actual[:, i + j - 3] > bound + slack).sum())
        for i in range(1, n + 1):
            for j in range(n + 1 - i, n + 1):
                bound, index = weyl_product_lower_bound(a, b, i, j), i + j - n
                value = actual[:, index - 1] if index <= actual.shape[1] else torch.zeros_like(bound)
                assert (value >= bound - slack).all()
                if j > n + 1 - i and index <= actual.shape[1]:
                    wrong = weyl_product_lower_bound(a, b, i, j - 1)  # bounds the index before this one
                    too_high += int((value < wrong - slack).sum())
    assert off_by_one > 1000
    assert too_high > 1000


def test_weyl_product_is_tight_and_symmetric() -> None:
    a, b = torch.diag(torch.tensor([5.0, 3.0, 1.0])).double(), 2 * torch.eye(3).double()
    for i in range(1, 4):
        assert abs(sigma(a @ b, i) - weyl_product_upper_bound(a, b, i, 1)) <= 1e-10 * 10
        assert abs(sigma(a @ b, i) - weyl_product_lower_bound(a, b, i)) <= 1e-10 * 10
        assert abs(sigma(b @ a, i) - weyl_product_lower_bound(b, a, 3, i)) <= 1e-10 * 10


def test_the_workshops_product_lemma_needs_the_inner_dimension() -> None:
    """Lemma A.1 as printed, with the smallest of min(n, p) values, fails for a thin second factor."""
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0], [1.0]])
    printed = norm(a)[0] * norm(b)[-1]
    assert printed > norm(a @ b)[0]
    assert weyl_product_lower_bound(a, b, 1) == 0  # padded, not computed


def test_angle_bound_contains_the_classical_one() -> None:
    for a, b in chains(2, seed=5):
        n = a.shape[2]
        if a.shape[1] >= n and b.shape[2] >= n:
            slack = rounding(sigma(a, 1) * sigma(b, 1), 6)
            classical = weyl_product_lower_bound(a, b, n, 1)  # sigma_n(A) sigma_1(B): r = n
            assert (product_lower_bound(a, b, 1) >= classical - slack).all()


def test_sum_bound_holds_and_without_reversal_fails() -> None:
    violated = 0
    for a, b in chains(2, seed=6):
        actual = norm(a @ b)
        for k in range(1, a.shape[2] + 1):
            slack = rounding(sigma(a, 1) * sigma(b, 1), 6 * k)
            assert (actual[:, :k].sum(-1) >= sum_lower_bound(a, b, k) - slack).all()
        q = min(a.shape[1], a.shape[2], b.shape[2])
        wrong = (norm(a)[:, :q] * norm(b)[:, :q]).sum(-1)
        violated += int((wrong > actual.sum(-1) + rounding(sigma(a, 1) * sigma(b, 1), 36)).sum())
    assert violated > 1000


def test_sum_bound_needs_one_term_more_than_the_remark_says() -> None:
    """Rank n - 2: two terms give 0, three do not; and the bound is tight for oppositely ordered factors."""
    a = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0])).double()
    b = torch.diag(torch.tensor([0.0, 0.0, 5.0, 7.0])).double()
    assert sum_lower_bound(a, b, 2) <= 1e-10
    assert abs(sum_lower_bound(a, b, 3) - 10) <= 1e-10 * 10
    assert abs(sum_lower_bound(a, b, 4) - norm(a @ b).sum()) <= 1e-10 * 17


def test_two_layer_bound_holds_for_the_exact_hessian_block() -> None:
    generator = torch.Generator().manual_seed(7)
    violated = 0
    for h, o, n in [(h, o, n) for h in (1, 2, 3, 5) for o in (1, 2, 4) for n in (1, 3)][:NUM_BATCHES]:
        w2 = matrices((o, h), generator)
        gates = (torch.rand(BATCH, h, generator=generator) < 0.8).double()
        x = torch.randn(BATCH, n, generator=generator, dtype=torch.float64)
        inner = gates.unsqueeze(-1) * (w2.mT @ w2) * gates.unsqueeze(-2)
        actual = sigma(inner, 1) * x.square().sum(-1)
        slack = rounding(sigma(w2, 1) ** 2 * x.square().sum(-1), 6)
        assert (two_layer_loss_bound(w2, gates, x) <= actual + slack).all()
        without_gates = sigma(w2, 1) * norm(w2)[:, -1] * x.square().sum(-1)
        violated += int((without_gates > actual + slack).sum())
    assert violated > 100


def test_two_layer_block_is_the_hessian_of_the_squared_error() -> None:
    generator = torch.Generator().manual_seed(8)
    w1, w2 = (torch.randn(3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    x, y = (torch.randn(3, generator=generator, dtype=torch.float64) for _ in range(2))
    hessian = torch.func.hessian(lambda w: 0.5 * ((w2 @ torch.relu(w.view(3, 3) @ x) - y) ** 2).sum())(w1.flatten())
    gates = (w1 @ x > 0).double()
    inner = torch.diag(gates) @ w2.T @ w2 @ torch.diag(gates)
    torch.testing.assert_close(torch.kron(inner, torch.outer(x, x)), hessian, rtol=1e-10, atol=1e-12)
    eye = torch.eye(3, dtype=torch.float64)
    assert abs(two_layer_loss_bound(2 * eye, torch.ones(3), x) - 4 * x.square().sum()) <= 1e-10 * 4 * x.square().sum()


def test_upper_bounds_hold() -> None:
    generator = torch.Generator().manual_seed(9)
    violated = 0
    for w, b in chains(2, seed=9):
        z = torch.randn(BATCH, w.shape[2], generator=generator, dtype=torch.float64)
        x = torch.randn(BATCH, 3, generator=generator, dtype=torch.float64)
        actual = sigma((w @ z.unsqueeze(-1)) * x.unsqueeze(-2), 1)
        bound = outer_product_upper_bound(w, z, x)
        assert (actual <= bound + rounding(bound, 6)).all()
        violated += int((actual > norm(w)[:, -1] * z.norm(dim=-1) * x.norm(dim=-1) + rounding(bound, 6)).sum())
        product = torch.stack([torch.kron(p, q) for p, q in zip(w[:20], b[:20], strict=True)])
        equal = kronecker_upper_bound(w[:20], b[:20])
        assert ((sigma(product, 1) - equal).abs() <= rounding(equal, 36)).all()
    assert violated > 1000  # the smallest singular value instead of the largest


def test_kronecker_with_a_column_holds_on_every_instance() -> None:
    generator = torch.Generator().manual_seed(10)
    for w, _ in pairs(10):
        x = torch.randn(BATCH, 4, 1, generator=generator, dtype=torch.float64)
        product = (w[:, :, None, :] * x[:, None, :, :]).flatten(1, 2)
        bound = kronecker_upper_bound(w, x)
        assert ((sigma(product, 1) - bound).abs() <= rounding(bound, 24)).all()


def test_block_sum_holds_is_tight_and_its_maximum_fails() -> None:
    violated = 0
    for a, b in pairs(11):
        grid = [[a, b], [b, 2 * a]]
        h = torch.cat([torch.cat(row, -1) for row in grid], -2)
        bound = block_sum_upper_bound(grid)
        assert (sigma(h, 1) <= bound + rounding(bound, 12)).all()
        largest = torch.stack([sigma(block, 1) for row in grid for block in row]).amax(0)
        violated += int((sigma(h, 1) > largest + rounding(bound, 12)).sum())
    assert violated > 1000
    one = torch.ones(1, 1)
    assert abs(block_sum_upper_bound([[one, 0 * one]]) - 1) <= 1e-10
    w, z = torch.diag(torch.tensor([3.0, 1.0])), torch.tensor([2.0, 0.0])
    assert abs(outer_product_upper_bound(w, z, z) - sigma(torch.outer(w @ z, z), 1)) <= 1e-10 * 12


EYE = torch.eye(3)


@pytest.mark.parametrize(
    ("bound", "arguments", "message"),
    [
        (poincare_bounds, (EYE, 5), "`num_deleted` must be between 0 and 4, what 3 x 3 can lose; got 5. Choose one in"),
        (
            weyl_sum_upper_bound,
            (EYE, EYE[:2], 1, 1),
            r"`b` must have the shape of a, \[3, 3\]; got \[2, 3\]. Only equal",
        ),
        (weyl_sum_upper_bound, (EYE, EYE, 4, 1), "`i` must be between 1 and 3, the short side; got 4. Choose one in"),
        (
            weyl_sum_lower_bound,
            (EYE, EYE, 2, 3),
            r"`j` must be between 1 and 2, so that i \+ j - 1 stays within the sh",
        ),
        (weyl_product_upper_bound, (EYE, EYE, 2, 3), r"`j` must be between 1 and 2, so that i \+ j - 1 stays within"),
        (weyl_product_upper_bound, (EYE, EYE, 0, 1), "`i` must be between 1 and 3, the shortest side of the factors;"),
        (weyl_product_lower_bound, (EYE, EYE, 4), "`i` must be between 1 and 3, the inner dimension; got 4. Choose"),
        (weyl_product_lower_bound, (EYE, EYE, 1, 1), r"`j` must be between 3 and 3, so that i \+ j exceeds the inner"),
        (sum_lower_bound, (EYE, EYE, 4), "`k` must be between 1 and 3, the inner dimension; got 4. Choose one in that"),
        (two_layer_loss_bound, (EYE, EYE[0, :2], EYE[0]), "`gates` must have one entry per column of weight, 3; got 2"),
        (
            outer_product_upper_bound,
            (EYE, EYE[0, :2], EYE[0]),
            r"`weight` and `z` must be conformable matrices; got \[",
        ),
        (
            block_sum_upper_bound,
            ([],),
            r"`blocks` must be a full grid of blocks; got rows of \[\]. Fill it with zeros.",
        ),
        (
            block_sum_upper_bound,
            ([[EYE], [EYE, EYE]],),
            r"`blocks` must be a full grid of blocks; got rows of \[1, 2\]",
        ),
        (
            block_sum_upper_bound,
            ([[EYE, EYE[:2]]],),
            r"block \(0, 1\) has to be \[3, 3\]; got \[2, 3\]. Transpose it or",
        ),
        (kronecker_upper_bound, (EYE, EYE[0]), r"`b` must be a non-empty batch of matrices; got shape \[3\]. Give it"),
    ],
)
def test_messages(bound: Callable[..., Tensor], arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SpecdefError, match=message):
        bound.__wrapped__(*arguments)  # type: ignore[attr-defined]
