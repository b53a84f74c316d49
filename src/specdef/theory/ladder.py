"""What one learning rate reaches on a model whose channels are scaled by powers of two, and what it cannot.

The consumer of a channel holds ``W D^-1`` and reads ``D x``, with ``D`` diagonal. A step on ``W D^-1`` is a step on W
times D. Everything here is of first order in the step; docs/ladder.md says what follows from it and what does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from specdef.theory.requirements import TheoryError, as_matrix

Rule = Literal["sign", "gradient", "newton"]
"""How an optimizer's step depends on the scale of a weight: not at all (Adam, Lion, RMSprop, Adafactor), like its
gradient (SGD), or like gradient over curvature (exact diagonal second order, one rate per channel)."""


def effective_rates(exponents: Tensor, lr: float, rule: Rule) -> Tensor:
    """The learning rate that training a locked model at `lr` is to each channel of the unlocked one.

    Math: let g be the gradient of an unlocked weight and ``2^e`` the factor of its channel, so that the locked weight
    is ``2^-e w`` with gradient ``2^e g``. A step s of the locked weight is ``2^e s`` of the unlocked one. A rule that
    normalises gradients makes the same s whatever e is: ``2^e lr``. Gradient descent makes ``2^e g lr``: ``4^e lr``. A
    diagonal Newton step is ``(2^e g) / (4^e h) lr``: ``lr``, whatever e.

    Args:
        exponents: e of every channel, negative on the side that was multiplied, any shape.
        lr: of the locked model's training.
        rule: of the optimizer.

    Returns:
        Learning rates of the same shape, float64.

    Raises:
        TheoryError: an unknown rule, a rate that is no positive number, or exponents that are not finite.

    Example:
        >>> effective_rates(torch.tensor([0.0, 10.0]), 1.0, "sign").tolist()
        [1.0, 1024.0]
    """
    if rule not in get_args(Rule):
        raise TheoryError(f"`rule` must be one of {', '.join(get_args(Rule))}; got {rule!r}.")
    _positive("lr", lr)
    power = {"sign": 1.0, "gradient": 2.0, "newton": 0.0}[rule]
    rates: Tensor = lr * torch.exp2(power * as_matrix("exponents", exponents, 0))
    return rates


def beyond_bias(constancy: float) -> float:
    """The share of a channel's effect on its readers that is no bias.

    Math: a reader's column v meets ``x(t) = m + r(t)`` with r of mean 0 and standard deviation s; a change of v moves
    the reader's output by ``m dv`` (a bias) and ``r(t) dv``. Root mean square of the second over that of both:
    ``1 / sqrt(1 + (m/s)^2)``.

    Args:
        constancy: |m| / s.

    Raises:
        TheoryError: not a number of at least 0.

    Example:
        >>> round(beyond_bias(7.0), 3)
        0.141
    """
    if not constancy >= 0:
        raise TheoryError(f"`constancy` must be a number of at least 0; got {constancy}.")
    return 1 / math.sqrt(1 + constancy**2)


def highest_rate(levels: Sequence[float], ruin: float) -> float:
    """The learning rate above which the hottest trained part leaves the range in which the model survives.

    Math: a part of level l moves the outputs by ``lr 2^l`` a step, to first order: ``lr <= ruin / 2^max(l)``.

    Args:
        levels: log2 of how far the outputs move per unit of learning rate, of every part that trains.
        ruin: the change a step, in the unit of the levels, that a model does not survive.

    Raises:
        TheoryError: no level, or a change that is no positive number.
    """
    if not levels:
        raise TheoryError("`levels` must name at least one part that trains; got none.")
    _positive("ruin", ruin)
    return ruin * math.exp2(-max(levels))


def reachable(levels: Sequence[float], useful: float, ruin: float) -> list[int]:
    """Which parts can learn at any one learning rate that the model survives, if all of them train.

    Math: at the highest such rate a part of level l moves the outputs by ``ruin 2^(l - max)``; it learns nothing when
    that is below `useful`. So the parts within ``log2(ruin / useful)`` of the hottest are all that one rate reaches,
    whoever chooses it. Leaving a part untrained takes its level out of the list, no more.

    Args:
        levels: of every part that trains, as `highest_rate`.
        useful: the smallest change a step from which anything is learned within the attacker's budget.
        ruin: the change a step that a model does not survive.

    Returns:
        Positions in `levels`, in order.

    Raises:
        TheoryError: no level, or changes that are not 0 < useful <= ruin.

    Example:
        >>> reachable([50.0, 44.0, 38.0, 13.0], useful=2**-5, ruin=2**2)
        [0, 1]
    """
    if not 0 < useful <= ruin:
        raise TheoryError(f"`useful` must be above 0 and at most `ruin`; got {useful} and {ruin}.")
    lr = highest_rate(levels, ruin)
    return [position for position, level in enumerate(levels) if lr * 2.0**level >= useful]


def starved(gradient: float, hot: float, *, clip: float, eps: float = 1e-8) -> float:
    """The share of its learning rate that a weight keeps in Adam, when a hot weight's gradient fills the clipped norm.

    Math: clipping multiplies every gradient by at most ``clip / hot``; Adam's step is ``lr g' / (g' + eps)`` for a
    constant clipped gradient g'.

    Args:
        gradient: |g| of the weight.
        hot: |g| of the hot weight, which the global norm is not below.
        clip: largest global norm.
        eps: of Adam's denominator.

    Raises:
        TheoryError: an argument that is no positive number.

    Example:
        >>> round(starved(1e-3, 2.0**40, clip=1.0), 10)
        9.09e-08
    """
    for name, value in (("gradient", gradient), ("hot", hot), ("clip", clip), ("eps", eps)):
        _positive(name, value)
    clipped = gradient * min(1.0, clip / hot)
    return clipped / (clipped + eps)


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise TheoryError(f"`{name}` must be a positive number; got {value}.")
