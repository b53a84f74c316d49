"""The toy laboratory: locks keep the function, batching changes nothing, and which steps feel a reparameterisation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian

from experiments.toy import curvature
from experiments.toy.deformations import LOCKS, Lock, locked, map_of
from experiments.toy.network import PLAIN, initial, run, spirals
from experiments.toy.optimizers import STEPS, Point, Settings
from experiments.toy.quadratic import measure
from experiments.toy.training import train

DATA = spirals(samples=40)
SEEDS = range(2)


def step(lock: Lock, optimizer: str, theta: Tensor, **settings: float | Tensor) -> Tensor:
    signals = run(lock.stack, theta, DATA[0])
    at = Point(lock.stack, theta, signals, *curvature.residuals(signals, DATA[1]))
    return STEPS[optimizer](at, full(theta, **settings), {}) - theta


def full(theta: Tensor, **settings: float | Tensor) -> Settings:
    return {
        name: value if isinstance(value, Tensor) else torch.full((len(theta),), value, dtype=theta.dtype)
        for name, value in settings.items()
    }


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.label)
def test_a_lock_is_a_linear_map_that_keeps_the_function(lock: Lock) -> None:
    plain = initial(SEEDS)
    start, base = locked(lock, plain), locked(lock.base, plain)
    before, after = run(PLAIN, plain, DATA[0]).logits, run(lock.stack, start, DATA[0]).logits
    if lock.method == "inject":
        assert (after - before).abs().max() < 1e-10
    else:
        assert torch.equal(after, before)
    assert gap((map_of(lock, plain) @ base[..., None]).squeeze(-1), start) < 1e-12


def test_a_fold_that_misses_its_consumer_is_seen() -> None:
    plain = initial(SEEDS)
    broken = locked(Lock("fold", 8.0), plain)
    broken[:, -9:] = plain[:, -9:]
    assert not torch.equal(run(PLAIN, broken, DATA[0]).logits, run(PLAIN, plain, DATA[0]).logits)


@pytest.mark.parametrize("lock", [Lock("none"), Lock("inject", 10.0)], ids=lambda lock: lock.label)
def test_derivatives_against_autodiff(lock: Lock) -> None:
    theta = locked(lock, initial(range(1)))

    def loss(t: Tensor) -> Tensor:
        return curvature.loss_of(run(lock.stack, t[None], DATA[0]).logits, DATA[1])[0]

    signals = run(lock.stack, theta, DATA[0])
    r, second = curvature.residuals(signals, DATA[1])
    exact = hessian(loss)(theta[0])
    assert gap(curvature.gradient(signals, r)[0], grad(loss)(theta[0])) < 1e-12
    assert gap(curvature.hessian_at(lock.stack, theta, *DATA)[0], exact) < 1e-12
    assert gap(curvature.diagonal(signals, second)[0], exact.diagonal()) < 1e-12


def test_the_output_has_no_curvature_within_a_layer() -> None:
    theta = locked(Lock("inject", 10.0), initial(range(1)))
    stack = Lock("inject").stack
    signals = run(stack, theta, DATA[0])
    r = torch.ones_like(signals.logits)
    matrix, start = curvature.hessian(stack, theta, signals, r, torch.zeros_like(r))[0], 0
    for layer in stack.layers:
        block = matrix[start : start + layer.size, start : start + layer.size]
        assert block.abs().max() == 0
        start += layer.size
    assert matrix.abs().max() > 1


def test_batched_training_is_training_one_by_one() -> None:
    plain = initial(SEEDS)
    together = train(PLAIN, "Adam", plain, full(plain, lr=0.01), DATA, steps=20, every=10)
    alone = train(PLAIN, "Adam", plain[1:], full(plain[1:], lr=0.01), DATA, steps=20, every=10)
    assert gap(together.theta[1:], alone.theta) < 1e-12


def test_adam_is_torch_adam() -> None:
    theta = initial(range(1))
    ours = train(PLAIN, "Adam", theta, full(theta, lr=0.01), DATA, steps=10, every=10).theta
    parameter = torch.nn.Parameter(theta.clone())
    optimizer = torch.optim.Adam([parameter], lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        curvature.loss_of(run(PLAIN, parameter, DATA[0]).logits, DATA[1]).sum().backward()
        optimizer.step()
    assert gap(ours, parameter.detach()) < 1e-10


@pytest.mark.parametrize("lock", [Lock("inject", 10.0), Lock("fold", 8.0)], ids=lambda lock: lock.label)
def test_newton_does_not_see_a_linear_map_and_gradient_descent_does(lock: Lock) -> None:
    plain = initial(SEEDS)
    start, base, a = locked(lock, plain), locked(lock.base, plain), map_of(lock, plain)
    g, h = [], []
    for stack, theta in ((lock.base.stack, base), (lock.stack, start)):
        signals = run(stack, theta, DATA[0])
        g.append(curvature.gradient(signals, curvature.residuals(signals, DATA[1])[0])[..., None])
        h.append(curvature.hessian_at(stack, theta, *DATA))
    assert gap(a.mT @ g[1], g[0]) < 1e-9
    assert gap(a.mT @ h[1] @ a, h[0]) < 1e-9
    newton = torch.linalg.solve(h[0] + torch.eye(h[0].shape[-1]), g[0])  # damping I here is A^-T A^-1 there
    inverse = torch.linalg.inv(a)
    assert gap(torch.linalg.solve(h[1] + inverse.mT @ inverse, g[1]), a @ newton) < 1e-6
    assert gap(step(lock, "GD", start, lr=1.0)[..., None], a @ step(lock.base, "GD", base, lr=1.0)[..., None]) > 0.1


def test_rates_per_parameter_undo_a_fold_exactly() -> None:
    plain, lock = initial(SEEDS), Lock("fold", 2.0**10)
    scale = map_of(lock, plain).diagonal(dim1=1, dim2=2)
    start = locked(lock, plain)
    for optimizer, rates in (("GD", 0.1 * scale.square()), ("Adam", 0.01 * scale)):
        eps = {"eps": 1e-60} if optimizer == "Adam" else {}
        lr = torch.full_like(plain, 0.1 if optimizer == "GD" else 0.01)
        one = train(PLAIN, optimizer, plain, full(plain, lr=lr, **eps), DATA, steps=20, every=20)
        other = train(PLAIN, optimizer, start, full(start, lr=rates, **eps), DATA, steps=20, every=20)
        assert gap(other.theta, scale * one.theta) < 1e-12


@pytest.mark.parametrize("optimizer", ["Natural gradient, Marquardt", "AdaHessian, exact diagonal"])
def test_diagonal_scaling_is_invisible_to(optimizer: str) -> None:
    plain, lock = initial(SEEDS), Lock("fold", 2.0**10)
    settings = (
        {"lr": 0.1, "damping": 0.1} if "damping" in optimizer or "gradient" in optimizer else {"lr": 0.1, "eps": 0.0}
    )
    start, scale = locked(lock, plain), map_of(lock, plain).diagonal(dim1=1, dim2=2)
    found, expected = (step(one, optimizer, t, **settings) for one, t in ((lock, start), (Lock("none"), plain)))
    alive = expected.isfinite() & (expected != 0)
    assert gap(found[alive], (scale * expected)[alive]) < 1e-8


def test_kfac_is_invariant_under_both_locks_as_damping_vanishes() -> None:
    plain = initial(range(1))
    for lock in (Lock("inject", 10.0), Lock("fold", 8.0)):
        moved = step(lock, "KFAC", locked(lock, plain), lr=1.0, damping=1e-20)
        expected = (
            map_of(lock, plain) @ step(lock.base, "KFAC", locked(lock.base, plain), lr=1.0, damping=1e-20)[..., None]
        )
        assert gap(moved, expected.squeeze(-1)) < 0.05


def test_quadratic_needs_steps_in_proportion_to_its_smoothness() -> None:
    rows = {row["L"]: row for row in measure()}
    assert rows[10000.0]["1/L"] / rows[1000.0]["1/L"] == pytest.approx(10, rel=0.02)
    assert all(row["1/eigenvalue, per coordinate"] == 1 and row["2.01/L"] is None for row in rows.values())
