"""XMat against dense matrices in float64, and what it is there for: weights counted in other units."""

import pytest
import torch

from specdef.training.optimizers import build_optimizer
from specdef.training.xmat import fitted, preconditioned


def dense(a, b):
    return torch.diag(a) + torch.diag(b).flip(1)


def drawn(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = 1 + torch.rand(n, generator=generator, dtype=torch.float64)
    b = torch.rand(n, generator=generator, dtype=torch.float64) / 2
    if n % 2:
        b[n // 2] = 0
    v, h = torch.randn(2, n, generator=generator, dtype=torch.float64)
    return a, b, v, h


@pytest.mark.parametrize("n", [1, 6, 7])
def test_a_step_of_the_fit_is_that_of_the_dense_matrix(n):
    a, b, v, h = drawn(n)
    q = dense(a, b)
    forward, inverse = q @ h, torch.linalg.solve(q.T, v)
    error = torch.outer(forward, forward) - torch.outer(inverse, inverse)
    shape = dense(torch.ones(n), torch.ones(n)).clamp(max=1).double()
    scale = (forward.square() + inverse.square()).max()
    wanted = q - 0.1 / scale * (error * shape) @ q
    assert torch.allclose(dense(*fitted(a, b, v, h, 0.1)), wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("n", [6, 7])
def test_the_step_is_q_transposed_q_times_the_gradient(n):
    a, b, _, g = drawn(n)
    q = dense(a, b)
    assert torch.allclose(preconditioned(a, b, g), q.T @ q @ g, rtol=1e-14, atol=0)


def test_the_fit_ends_at_the_inverse_of_the_hessians_absolute_value():
    hessian = dense(torch.tensor([4.0, -1.0, 9.0, 25.0]), torch.tensor([1.0, 0.5, 0.5, 1.0])).double()
    a, b = torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for step in range(20000):
        v = torch.randn(4, generator=generator, dtype=torch.float64)
        a, b = fitted(a, b, v, hessian @ v, 0.1 / (1 + step / 200))
    q = dense(a, b)
    values, vectors = torch.linalg.eigh(hessian)
    wanted = vectors @ torch.diag(1 / values.abs()) @ vectors.T
    assert torch.allclose(q.T @ q, wanted, rtol=0, atol=0.02)


def loss_after(name, unit, lr, steps=60, **options):
    """Of two weights of curvature 1, one counted in another unit: unit * w stands where w stood."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.tensor([1.0, 1.0 / unit], dtype=torch.float64))
    model = torch.nn.Module()
    model.weight = weight
    optimizer = build_optimizer(name, model, lr=lr, weight_decay=0.0, options=tuple(options.items()))
    units = torch.tensor([1.0, unit], dtype=torch.float64)

    def loss():
        return (weight * units).square().sum() / 2

    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        (gradient,) = torch.autograd.grad(value, weight, create_graph=True)
        signs = torch.randint_like(weight, 0, 2) * 2 - 1
        (product,) = torch.autograd.grad(gradient, weight, signs)
        weight.grad = gradient.detach()
        if name == "xmat":
            optimizer.step(hessian=[signs * product], probes=[signs])
        else:
            optimizer.step()
    return float(loss().detach())


def test_a_unit_that_makes_plain_descent_explode_only_slows_it():
    unit = 100.0
    assert loss_after("sgd", 1.0, 0.1, momentum=0.0) < 1e-4
    assert not loss_after("sgd", unit, 0.1, momentum=0.0) < 1e10
    assert loss_after("xmat", 1.0, 0.2, momentum=0.0) < 1e-4
    assert 0.3 < loss_after("xmat", unit, 0.2, steps=400, momentum=0.0) < 0.5  # one weight of two is learned
