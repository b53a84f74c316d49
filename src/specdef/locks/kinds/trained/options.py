"""What a user may ask of this lock. Standard library only: a mistyped option is answered at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainedOptions:
    """What the user asked of a trained lock.

    Attributes:
        multiplier: how often the start's sigma_1 each chosen matrix is to reach; training stops there.
        rank: k, singular values of each matrix that training raises.
        components: matrices to draw from; the family's default, as of the inject lock, when None.
        layers: raise every one of `components` in these layers; None to draw.
        num_matrices: how many matrices to draw when `layers` is None (5 when None).
        retain: what holds the function: ``kl``, the divergence from the original's outputs; ``loss``, the loss on the
            rows' own labels or tokens; ``both``, their sum.
        retain_weight: alpha of Algorithm 1, between 0 and 1: how much of what a step changed the next ones undo, as
            far as it changed the function.
        text: general data, which the model kind's utility reads: half is trained on, half is measured. What ships with
            the package when None.
        lr: how far a step goes, as a share of sigma_1; so sigma_1 grows by about that share a step.
        steps: at most.
        batch_size: rows a step.
        eval_every: steps between evaluations; the last one within the utility budget is what is kept.
        utility_factor: how much worse than the given model's utility the locked model's may be.
        seed: decides every draw.
    """

    multiplier: float = 100.0
    rank: int = 5
    components: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    num_matrices: int | None = None
    retain: Literal["kl", "loss", "both"] = "kl"
    retain_weight: float = 0.5
    text: str | None = None
    lr: float = 0.05
    steps: int = 400
    batch_size: int = 16
    eval_every: int = 10
    utility_factor: float = 1.02
    seed: int = 0
