"""Iteration counts against the optimizers themselves, on 10,000 random instances each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_matrices import EPS
from torch import Tensor

from specdef.errors import SpecdefError
from specdef.theory import (
    gradient_descent_iterations,
    muon_iterations,
    muon_step,
    nesterov_iterations,
    newton_iterations,
    newton_radius,
    newton_step_bound,
)

NUM = 10_000


def uniform(low: float, high: float, *shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


def quadratics(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Curvatures [NUM, 6] over six decades, starting points, and their distance to the minimum at 0."""
    h = 10 ** uniform(-4, 2, NUM, 6, seed=seed)
    start = torch.randn(NUM, 6, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    return h, start, start.norm(dim=-1)


def test_gradient_descent_reaches_the_tolerance_in_time_and_without_curvature_would_not() -> None:
    h, start, distance = quadratics(0)
    smoothness = h.amax(-1)
    eps = smoothness * distance * 10 ** uniform(-3, 0, NUM, seed=2)

    def gradient(steps: Tensor) -> Tensor:  # min over i < steps is the last one, for a quadratic
        return (h * (1 - h / smoothness.unsqueeze(-1)) ** (steps.ceil() - 1).unsqueeze(-1) * start).norm(dim=-1)

    assert (gradient(gradient_descent_iterations(smoothness, distance, eps)) <= eps * (1 + 64 * EPS)).all()
    blind = gradient_descent_iterations(1.0, distance, eps).clamp(min=1)
    assert (gradient(blind) > eps).sum() > 100


def test_gradient_descent_is_tight_for_one_step_of_a_round_bowl() -> None:
    smoothness, distance = 7.0, 3.0
    assert abs(gradient_descent_iterations(smoothness, distance, smoothness * distance) - 1) <= 1e-10


def nesterov(h: Tensor, start: Tensor, num_steps: int) -> list[Tensor]:
    smoothness = h.amax(-1, keepdim=True)
    x, y, t = start, start, 1.0
    losses = [(h * x**2).sum(-1) / 2]
    for _ in range(num_steps):
        after = y - h * y / smoothness
        t_after = (1 + (1 + 4 * t * t) ** 0.5) / 2
        x, y, t = after, after + (t - 1) / t_after * (after - x), t_after
        losses.append((h * x**2).sum(-1) / 2)
    return losses


def test_nesterov_reaches_the_tolerance_in_time_and_gradient_descent_would_not() -> None:
    h, start, distance = quadratics(3)
    smoothness = h.amax(-1)
    slower = 0
    for k, loss in enumerate(nesterov(h, start, 60)):
        eps = 2 * smoothness * distance**2 / (k + 1) ** 2
        steps = nesterov_iterations(smoothness, distance, eps)
        torch.testing.assert_close(steps, torch.full_like(steps, k), rtol=1e-12, atol=1e-12)
        assert (loss <= eps * (1 + 64 * EPS)).all()
        descent = (h * ((1 - h / smoothness.unsqueeze(-1)) ** k * start) ** 2).sum(-1) / 2
        slower += int((descent > eps).sum())
    assert slower > 100


def test_newton_step_and_count_hold_and_without_the_margin_fail() -> None:
    """f = mu |x|^2 / 2 + L2 sum x_i^3 / 6, whose Hessian is L2-Lipschitz with smallest eigenvalue mu at 0."""
    l2, mu, c = (10 ** uniform(-2, 2, NUM, seed=5), 10 ** uniform(-2, 2, NUM, seed=6), uniform(0.05, 0.66, NUM, seed=7))
    direction = torch.randn(NUM, 3, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    radius = newton_radius(l2, mu, c)
    x = direction / direction.norm(dim=-1, keepdim=True) * (radius * uniform(0.01, 1, NUM, seed=9)).unsqueeze(-1)
    first = x.norm(dim=-1)
    eps = first * 10 ** -uniform(0, 8, NUM, seed=10)
    steps = newton_iterations(l2, mu, first, eps, c).ceil()
    violated = 0
    for k in range(int(steps.amax()) + 1):
        distance = x.norm(dim=-1)
        assert (distance[steps <= k] <= eps[steps <= k] * (1 + 64 * EPS)).all()
        bound = newton_step_bound(distance.clamp(min=1e-300), l2, mu, c)
        gradient = mu.unsqueeze(-1) * x + l2.unsqueeze(-1) * x**2 / 2
        x = x - gradient / (mu.unsqueeze(-1) + l2.unsqueeze(-1) * x)
        assert (x.norm(dim=-1) <= bound * (1 + 64 * EPS) + 8 * EPS * distance).all()
        violated += int((x.norm(dim=-1) > bound * (1 - c) * (1 + 64 * EPS) + 8 * EPS * distance).sum())
    assert violated > 100


def test_newton_step_is_tight_at_the_edge_of_the_basin() -> None:
    l2, mu, c = 3.0, 2.0, 0.6
    x = -c * mu / l2
    after = x - (mu * x + l2 * x**2 / 2) / (mu + l2 * x)
    assert abs(newton_step_bound(-x, l2, mu, c) - abs(after)) <= 1e-10 * abs(after)
    assert newton_step_bound(-x, l2, mu, c) < -x  # c < 2/3 contracts


def test_more_curvature_means_more_steps() -> None:
    slow, fast = (gradient_descent_iterations(l1, 1.0, 0.1) for l1 in (20.0, 10.0))
    assert abs(slow / fast - 4) <= 16 * EPS
    slow, fast = (nesterov_iterations(l1, 1.0, 0.1) + 1 for l1 in (40.0, 10.0))
    assert abs(slow / fast - 2) <= 16 * EPS
    assert muon_iterations(20.0, 1.0, 0.1, 3) == 2 * muon_iterations(10.0, 1.0, 0.1, 3)
    assert newton_radius(8.0, 1.0) == newton_radius(4.0, 1.0) / 2


def muon(weights: Tensor, start: Tensor, step: Tensor, num_steps: int) -> Tensor:
    """Smallest gradient norm of f = sum (weights W)^2 / 2 over the iterates."""
    w, best = start, torch.full_like(step, torch.inf)
    for _ in range(num_steps):
        gradient = weights**2 * w
        best = torch.minimum(best, torch.linalg.matrix_norm(gradient))
        u, _, vh = torch.linalg.svd(gradient, full_matrices=False)
        w = w - step.view(-1, 1, 1) * (u @ vh)
    return best


def test_muon_reaches_the_tolerance_in_time_and_a_step_blind_to_curvature_does_not() -> None:
    weights = 10 ** uniform(-1, 1, NUM, 3, 2, seed=11)
    start = torch.randn(NUM, 3, 2, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    smoothness, gap, num_steps = weights.square().amax((-2, -1)), ((weights * start) ** 2).sum((-2, -1)) / 2, 12
    eps = (2 * 2 * smoothness * gap / num_steps).sqrt()
    torch.testing.assert_close(muon_iterations(smoothness, gap, eps, 2), torch.full_like(eps, num_steps))
    best = muon(weights, start, muon_step(smoothness, gap, 2, num_steps), num_steps)
    assert (best <= eps * (1 + 256 * EPS)).all()
    blind = muon(weights, start, muon_step(1.0, gap, 2, num_steps), num_steps)
    assert (blind > (2 * 2 * gap / num_steps).sqrt()).sum() > 100


def test_muon_is_tight_for_one_step_of_a_round_bowl_of_rank_one() -> None:
    w = torch.tensor([[3.0, 0.0], [0.0, 0.0]]).double()
    gap = 5.0 * w.square().sum() / 2
    assert abs(muon_iterations(5.0, gap, 5.0 * w.norm(), rank=1) - 1) <= 1e-10


@pytest.mark.parametrize(
    ("count", "arguments", "message"),
    [
        (gradient_descent_iterations, (0.0, 1.0, 1.0), "`smoothness` must be positive and finite; got 0.0. Check its"),
        (nesterov_iterations, (1.0, 1.0, -1.0), "`tolerance` must be positive and finite; got -1.0. Check its units."),
        (newton_radius, (1.0, 1.0, 0.7), r"`c` must be below 2/3 for an invariant basin; got 0.7\d*. The default is 0"),
        (newton_step_bound, (2.0, 1.0, 1.0), r"`distance` must be at most c mu / L2 = 0.5; got 2.0. The theorem is lo"),
        (newton_iterations, (1.0, 1.0, 2.0, 0.1), "`distance` must be at most c mu / L2 = 0.5; got 2.0. The theorem i"),
        (muon_iterations, (1.0, 1.0, 1.0, 0), "`rank` must be between 1 and 2147483648, the short side of W at most;"),
        (muon_step, (1.0, 1.0, 1, 0), r"`num_steps` must be between 1 and \d+, one step or more; got 0. Choose one in"),
    ],
)
def test_messages(count: Callable[..., Tensor], arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SpecdefError, match=message):
        count(*arguments)
