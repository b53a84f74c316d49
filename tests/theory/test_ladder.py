"""What one learning rate reaches: the formulas against optimizers at work, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from specdef.theory import TheoryError, beyond_bias, effective_rates, highest_rate, reachable, starved
from specdef.theory.ladder import Rule

EXPONENTS = torch.tensor([0.0, 3.0, -2.0, 7.0], dtype=torch.float64)


def _problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((5, 4), (40, 4), (40, 5))]
    return draw[0], draw[1], draw[2]


def _moved(make: Callable[[list[Tensor]], torch.optim.Optimizer], exponents: Tensor) -> Tensor:
    """One step on ``W D^-1`` reading ``D x``, as a step on W."""
    weight, inputs, wanted = _problem()
    scale = torch.exp2(exponents)
    locked = (weight / scale).requires_grad_()
    optimizer = make([locked])
    (((inputs * scale) @ locked.T - wanted) ** 2).mean().backward()
    optimizer.step()
    return locked.detach() * scale - weight


OPTIMIZERS: list[tuple[str, Rule, Callable[[list[Tensor]], torch.optim.Optimizer]]] = [
    ("Adam", "sign", lambda weights: torch.optim.Adam(weights, lr=1e-3, eps=1e-30)),
    ("RMSprop", "sign", lambda weights: torch.optim.RMSprop(weights, lr=1e-3, eps=1e-30)),
    ("SGD", "gradient", lambda weights: torch.optim.SGD(weights, lr=1e-3)),
]


@pytest.mark.parametrize(("rule", "make"), [case[1:] for case in OPTIMIZERS], ids=[case[0] for case in OPTIMIZERS])
def test_a_step_on_the_locked_weights_is_one_at_the_effective_rates(
    rule: Rule, make: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> None:
    unlocked, locked = _moved(make, torch.zeros(4, dtype=torch.float64)), _moved(make, EXPONENTS)
    ratio = effective_rates(EXPONENTS, 1.0, rule)
    torch.testing.assert_close(locked, unlocked * ratio, rtol=1e-9, atol=0.0)


def test_a_diagonal_newton_step_does_not_see_the_scaling() -> None:
    weight, inputs, wanted = _problem()

    def step(exponents: Tensor) -> Tensor:
        scale = torch.exp2(exponents)
        locked = (weight / scale).requires_grad_()
        read = inputs * scale
        (((read @ locked.T - wanted) ** 2).sum() / 2).backward()
        assert locked.grad is not None
        return -(locked.grad / (read**2).sum(0)) * scale

    torch.testing.assert_close(step(EXPONENTS), step(torch.zeros(4, dtype=torch.float64)), rtol=1e-12, atol=0.0)
    assert effective_rates(EXPONENTS, 0.5, "newton").tolist() == [0.5] * 4


@pytest.mark.parametrize("constancy", [0.0, 1.0, 7.0])
def test_what_a_constant_channel_teaches_is_a_bias(constancy: float) -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(200_000, dtype=torch.float64, generator=generator)
    noise = (noise - noise.mean()) / noise.std(correction=0)
    effect = constancy + noise
    beyond = (effect - effect.mean()).pow(2).mean().sqrt() / effect.pow(2).mean().sqrt()
    assert beyond_bias(constancy) == pytest.approx(float(beyond), rel=1e-9)


def _training(levels: list[float], lr: float) -> Iterator[tuple[float, float]]:
    """Parts of a model that each pull their own output to its target by signed steps: (way gone, largest error)."""
    slopes = torch.exp2(torch.tensor(levels, dtype=torch.float64))
    weights = torch.zeros(len(levels), dtype=torch.float64)
    worst = torch.ones_like(weights)
    for _ in range(60):
        weights += lr * torch.sign(1 - slopes * weights)
        worst = torch.maximum(worst, (1 - slopes * weights).abs())
    return zip((slopes * weights).tolist(), worst.tolist(), strict=True)


def test_no_rate_reaches_more_than_the_neighbours_of_the_hottest_part() -> None:
    """Sixty signed steps at every rate from far too low to far too high, every part of the model alone and together."""
    levels = [50.0, 44.0, 38.0, 32.0, 13.0]
    ruin, useful = 4.0, 1 / 240  # an error of 4 is ruin; a quarter of the way in 60 steps is something learned
    for first in range(len(levels)):
        trained = levels[first:]
        could = {first + position for position in reachable(trained, useful, ruin)}
        learned: set[int] = set()
        for exponent in range(-70, 0):
            gone = list(_training(trained, 2.0**exponent))
            if max(worst for _, worst in gone) < ruin:
                learned |= {first + part for part, (way, _) in enumerate(gone) if way >= 0.25}
        assert learned <= could, (first, learned, could)
        assert first in learned
        assert len(could) <= 2


def test_the_highest_rate_is_that_of_the_hottest_part() -> None:
    assert highest_rate([3.0, 10.0], 2.0) == 2.0**-9
    for lr, survives in ((2.0**-9, True), (2.0**-7, False)):
        assert (max(worst for _, worst in _training([3.0, 10.0], lr)) <= 2.0) is survives


def test_clipping_starves_what_is_cold() -> None:
    """Adam itself, one hot weight of gradient 2^40 beside one of 1e-3, clipped to norm 1, against it alone."""
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=1.0)
    weights.grad = torch.tensor([2.0**40, 1e-3], dtype=torch.float64)
    torch.nn.utils.clip_grad_norm_([weights], 1.0)
    optimizer.step()
    kept = starved(1e-3, 2.0**40, clip=1.0)
    assert -float(weights[1]) == pytest.approx(kept, rel=1e-4)
    assert starved(1e-3, 1e-3, clip=1.0) == pytest.approx(1.0, rel=1e-4)


def test_arguments_outside_the_hypotheses_are_refused() -> None:
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: effective_rates(EXPONENTS, 0.0, "sign"), "`lr` must be a positive"),
        (lambda: effective_rates(EXPONENTS, 1.0, "muon"), "`rule` must be one of"),  # type: ignore[arg-type]
        (lambda: effective_rates(torch.tensor([math.nan]), 1.0, "sign"), "`exponents` must hold finite"),
        (lambda: beyond_bias(-1.0), "`constancy` must be"),
        (lambda: beyond_bias(math.nan), "`constancy` must be"),
        (lambda: highest_rate([], 1.0), "`levels` must name"),
        (lambda: highest_rate([1.0], math.inf), "`ruin` must be a positive"),
        (lambda: reachable([1.0], 2.0, 1.0), "`useful` must be above 0"),
        (lambda: starved(0.0, 1.0, clip=1.0), "`gradient` must be a positive"),
    ]
    for call, message in refused:
        with pytest.raises(TheoryError, match=message):
            call()
