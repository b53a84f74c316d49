"""The angle against its variational definition, and its gradient."""

from __future__ import annotations

import pytest
import torch
from random_matrices import EPS, chains
from torch import Tensor

from specdef.errors import SpecdefError
from specdef.theory import principal_angle_cosine


def test_cosine_is_the_worst_projection_over_the_smaller_subspace() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200, 4, 5, generator=generator, dtype=torch.float64)
    b = torch.randn(200, 5, 3, generator=generator, dtype=torch.float64)
    v = torch.linalg.svd(a)[2].mT[..., :3]
    u = torch.linalg.svd(b)[0][..., :2]
    found = principal_angle_cosine(a, b, 3, 2)
    angle = torch.linspace(0, torch.pi, 400, dtype=torch.float64)
    y = torch.stack([angle.cos(), angle.sin()])  # every unit vector of the plane span(u), up to sign
    projected = torch.linalg.vector_norm(v.mT @ u @ y, dim=-2).amin(-1)
    step = torch.pi / 399
    assert (found <= projected + 4 * EPS).all()
    assert (projected - found <= step).all()  # the projection is 1-Lipschitz in the angle


def test_known_rotation() -> None:
    theta = torch.linspace(0, torch.pi / 2, 31, dtype=torch.float64)
    b = torch.stack([theta.cos(), theta.sin()], -1).unsqueeze(-1)
    a = torch.diag(torch.tensor([2.0, 1.0])).double().expand(31, 2, 2)
    torch.testing.assert_close(principal_angle_cosine(a, b, 1, 1), theta.cos(), rtol=0, atol=8 * EPS)


def test_all_rows_of_a_square_factor_leave_no_angle() -> None:
    for a, b in chains(2, seed=3):
        n = a.shape[-1]
        if a.shape[-2] >= n:
            cosine = principal_angle_cosine(a, b, n, min(n, b.shape[-1]))
            torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=16 * n * EPS)


def test_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: principal_angle_cosine(a, b, 2, 1), (a, b))


EYE = torch.eye(3)


@pytest.mark.parametrize(
    ("b", "r", "k", "message"),
    [
        (EYE, 1, 2, r"`r` must be between 2 and 3, from k to the short side of a \[3, 3\]; got 1. Choose one in"),
        (EYE, 4, 4, r"`k` must be between 1 and 3, the short side of b \[3, 3\]; got 4. Choose one in that range."),
        (EYE[:2], 1, 1, r"`a` and `b` must be conformable matrices; got \[3, 3\] and \[2, 3\]. Columns of one must"),
        (EYE * torch.nan, 1, 1, "`b` must hold finite numbers; got NaN or inf. Check where it was computed."),
        (EYE[:, :0], 1, 1, r"`b` must be a non-empty batch of matrices; got shape \[3, 0\]. Give it at least 2 axes"),
        (EYE + 0j, 1, 1, r"`b` must be real; got torch.complex64. Pass its real and imaginary parts apart."),
    ],
)
def test_messages(b: Tensor, r: int, k: int, message: str) -> None:
    with pytest.raises(SpecdefError, match=message):
        principal_angle_cosine.__wrapped__(EYE, b, r, k)
