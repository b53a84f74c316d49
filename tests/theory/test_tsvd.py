"""T-product and T-SVD against the block-circulant matrix they stand for."""

from __future__ import annotations

import pytest
import torch
from random_matrices import EPS, tensors
from torch import Tensor

from specdef.errors import SpecdefError
from specdef.theory import t_product, t_svd, t_transpose, tensor_singular_values

SHAPES = [(2, 3, 4), (3, 3, 1), (4, 2, 3), (1, 5, 5), (3, 4, 2)]


def bcirc(t: Tensor) -> Tensor:
    n1, n2, n3 = t.shape
    blocks = torch.stack([torch.stack([t[..., (i - j) % n3] for j in range(n3)]) for i in range(n3)])
    return blocks.permute(0, 2, 1, 3).reshape(n1 * n3, n2 * n3)


def unfold(t: Tensor) -> Tensor:
    return t.movedim(-1, 0).flatten(0, 1)


def identity(n: int, n3: int) -> Tensor:
    t = torch.zeros(n, n, n3, dtype=torch.float64)
    t[..., 0] = torch.eye(n)
    return t


@pytest.mark.parametrize("shape", SHAPES)
def test_product_is_the_block_circulant_one(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(*shape, generator=generator, dtype=torch.float64)
    b = torch.randn(shape[1], 3, shape[2], generator=generator, dtype=torch.float64)
    torch.testing.assert_close(unfold(t_product(a, b)), bcirc(a) @ unfold(b), rtol=0, atol=1e3 * EPS)
    torch.testing.assert_close(bcirc(t_transpose(a)), bcirc(a).T, rtol=0, atol=0)
    torch.testing.assert_close(t_product(identity(shape[0], shape[2]), a), a, rtol=0, atol=1e2 * EPS)


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_are_real_orthogonal_and_give_the_tensor_back(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    t = tensors(shape, generator, 50)
    u, s, v = t_svd(t)
    q, n3 = min(shape[:2]), shape[2]
    back = t_product(t_product(u, s), t_transpose(v))
    scale = tensor_singular_values(t)[:, :1].view(-1, 1, 1, 1) * n3
    assert ((back - t).abs() <= 100 * EPS * scale).all()
    for factor in (u, v):
        gram = t_product(t_transpose(factor), factor)
        torch.testing.assert_close(gram, identity(q, n3).expand_as(gram), rtol=0, atol=200 * EPS)
    first = s[..., 0].diagonal(dim1=-2, dim2=-1)
    assert ((first - tensor_singular_values(t)).abs() <= 10 * EPS * scale.view(-1, 1)).all()
    off_diagonal = s - torch.diag_embed(s.diagonal(dim1=-3, dim2=-2)).movedim(-3, -1)
    assert (off_diagonal.abs() <= 10 * EPS * scale).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_values_average_the_block_circulant_spectrum(shape: tuple[int, int, int]) -> None:
    """Its n3 q singular values, sorted within slices: the sum over all is n3 times the sum of the tensor's."""
    t = torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    values = tensor_singular_values(t)
    assert abs(torch.linalg.svdvals(bcirc(t)).sum() - shape[2] * values.sum()) <= 1e4 * EPS
    assert (values.diff() <= 0).all()


def test_a_matrix_keeps_its_values() -> None:
    matrix = torch.randn(3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(tensor_singular_values(matrix.unsqueeze(-1)), torch.linalg.svdvals(matrix))


def test_the_mean_over_unitary_slices_is_another_number() -> None:
    t = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    unitary = torch.linalg.svdvals(torch.fft.fft(t, dim=-1, norm="ortho").movedim(-1, 0))
    torch.testing.assert_close(unitary.sum(0) / 2, tensor_singular_values(t))
    torch.testing.assert_close(unitary.mean(0) * 2, tensor_singular_values(t))


def test_values_change_under_a_unitary_change_of_the_third_mode() -> None:
    """Against the last step of Example 53."""
    t = torch.zeros(2, 2, 2, dtype=torch.float64)
    t[..., 0] = torch.eye(2)
    rotation = torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double() / 2**0.5
    assert abs(tensor_singular_values(t)[0] - 1) <= 4 * EPS
    assert abs(tensor_singular_values(t @ rotation)[0] - 0.5**0.5) <= 4 * EPS


def test_gradient() -> None:
    t = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(tensor_singular_values, (t,))
    assert torch.autograd.gradcheck(t_product, (t, t_transpose(t).detach().requires_grad_()))


def test_messages() -> None:
    t = torch.ones(2, 2, 3)
    with pytest.raises(SpecdefError, match=r"`t` must be a non-empty batch of third-order tensors; got shape \[2, 2"):
        tensor_singular_values.__wrapped__(t[..., 0])
    with pytest.raises(SpecdefError, match=r"`a` and `b` must be conformable matrices; got \[2, 2\] and \[1, 2\]. Col"):
        t_product.__wrapped__(t, t[:1])
    with pytest.raises(SpecdefError, match=r"`a` and `b` must have third modes of one length; got 3 and 2. Pad one"):
        t_product.__wrapped__(t, t[..., :2])
