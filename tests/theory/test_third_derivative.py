"""Example 53 against torch.func: the tensor, its decomposition, and what its Fourier slices look like."""

from __future__ import annotations

import pytest
import torch
from random_matrices import rounding
from torch import Tensor

from specdef.errors import SpecdefError
from specdef.theory import (
    ACTIVATIONS,
    ActivationName,
    composite_lower_bound,
    composite_upper_bound,
    mlp_third_derivative,
    t_product,
    tensor_product_lower_bound,
    tensor_singular_values,
)
from specdef.theory.tsvd import fourier_slices


def draw(seed: int, *batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((3, 2), (2, 3), (4, 2), (2,))
    w1, w2, w3, x = (torch.randn(*batch, *s, generator=generator, dtype=torch.float64) for s in shapes)
    return w1, w2, w3, x


def by_autodiff(w1: Tensor, w2: Tensor, w3: Tensor, x: Tensor, activation: ActivationName) -> Tensor:
    phi = ACTIVATIONS[activation].value

    def network(w4: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        return w4 @ phi(w3 @ phi(w2 @ phi(w1 @ x)))

    w4 = torch.ones(w3.shape[0], dtype=torch.float64)
    third = torch.func.jacfwd(torch.func.jacrev(torch.func.grad(network), argnums=1), argnums=2)(w4, w1, w2)
    return third.flatten(-2).flatten(1, 2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("activation", ["gelu", "tanh", "relu"])
def test_tensor_and_decomposition(activation: ActivationName, seed: int) -> None:
    weights = draw(seed)
    found = mlp_third_derivative(*weights, activation)
    expected = by_autodiff(*weights, activation)
    scale = expected.abs().max()
    assert (found.tensor - expected).abs().max() <= 1e-10 * scale
    assert (t_product(found.p, found.q) + found.r - expected).abs().max() <= 1e-10 * scale
    if activation == "relu":
        assert not found.r.any()
    else:
        assert found.r.abs().max() > 0


def test_decomposition_holds_in_every_fourier_direction() -> None:
    found = mlp_third_derivative(*draw(7), "gelu")
    t, p, q, r = (fourier_slices(part) for part in (found.tensor, found.p, found.q, found.r))
    torch.testing.assert_close(t, p @ q + r, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(p, p[:1].expand_as(p))  # the first factor is the same in all


def test_repeating_the_first_factor_in_every_slice_is_another_tensor() -> None:
    found = mlp_third_derivative(*draw(7), "gelu")
    repeated = found.p[..., :1].expand_as(found.p)
    wrong = t_product(repeated, found.q) + found.r
    assert (wrong - found.tensor).abs().max() > 0.1 * found.tensor.abs().max()


def test_slices_of_q_have_rank_one_so_the_papers_side_of_the_bound_is_empty() -> None:
    found = mlp_third_derivative(*draw(8), "gelu")
    values = torch.linalg.svdvals(fourier_slices(found.q))
    assert (values[:, 1] <= 1e-14 * values[:, 0]).all()
    p, q, r = found.p, found.q, found.r
    mirror = torch.linalg.svdvals(fourier_slices(p))[:, -1].min() * tensor_singular_values(q)[0]
    assert mirror > 0
    torch.testing.assert_close(tensor_product_lower_bound(p, q, 1), mirror)
    assert composite_lower_bound(p, q, r) <= tensor_singular_values(found.tensor)[0] <= composite_upper_bound(p, q, r)


@pytest.mark.parametrize("activation", ["gelu", "tanh", "relu"])
def test_bounds_hold_over_many_networks_and_scales(activation: ActivationName) -> None:
    found = mlp_third_derivative(*draw(9, 500), activation)
    for scale in (1.0, 10.0, 1000.0):
        p = scale * found.p
        actual = tensor_singular_values(t_product(p, found.q) + found.r)[:, 0]
        upper = composite_upper_bound(p, found.q, found.r)
        slack = rounding(upper * found.q.shape[-1], 6)
        assert (actual <= upper + slack).all()
        assert (actual >= composite_lower_bound(p, found.q, found.r) - slack).all()
        assert (actual >= composite_lower_bound(p, found.q, found.r, angles=True) - slack).all()


def test_batches_agree_with_one_at_a_time() -> None:
    weights = draw(10, 3)
    torch.testing.assert_close(
        mlp_third_derivative(*weights, "tanh").tensor[1], mlp_third_derivative(*(w[1] for w in weights), "tanh").tensor
    )


def test_messages() -> None:
    eye, x = torch.eye(2), torch.ones(2)
    with pytest.raises(SpecdefError, match=r"`w2` must have 2 columns, the width before it; got 3. Check the order o"):
        mlp_third_derivative.__wrapped__(eye, torch.eye(3), eye, x, "relu")
    with pytest.raises(SpecdefError, match=r"`activation` must be one of relu, gelu, tanh, identity; got 'silu'. Pic"):
        mlp_third_derivative.__wrapped__(eye, eye, eye, x, "silu")
