"""XMat, a second-order optimizer that the papers attack with.

Preconditioned stochastic gradient descent with an X-shaped matrix, written from its equations: no package that may be
used freely has it. Source: Pooladzandi and Li, Curvature-Informed SGD via General Purpose Lie-Group Preconditioners
(arXiv 2402.04553); the workshop paper's Appendix C attacks with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch


class XMat(torch.optim.Optimizer):
    """One step is w <- w - lr Q^T Q g, with Q = diag(a) + antidiag(b) over all parameters as one vector.

    Q is fitted to the Hessian H: it lowers E[h^T P h + v^T P^-1 v] for P = Q^T Q, probes v and h = H v, whose least
    value is at P^-1 = |H| among matrices of this shape. Fitted, it would undo a change of scale channel by channel;
    but a step of the fit is as long as the weight that is furthest off allows, and the others wait.

    Args:
        params: as torch's optimizers take them; one list of parameters.
        lr: of the weights.
        weight_decay: decoupled.
        precondition_lr: of the fit, from 0 to 1.
        momentum: weight of the past in the mean of gradients.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        weight_decay: float = 0.0,
        precondition_lr: float = 0.1,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "weight_decay": weight_decay, "precondition_lr": precondition_lr, "momentum": momentum},
        )
        self._scales: tuple[torch.Tensor, torch.Tensor] | None = None
        self._mean: torch.Tensor | None = None
        self._steps = 0

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, *, hessian: Sequence[torch.Tensor], probes: Sequence[torch.Tensor]
    ) -> None:
        """Fit Q, then move the weights.

        Args:
            hessian: per parameter v * (H v), its shape.
            probes: per parameter v, random signs, its shape.
        """
        (group,) = self.param_groups
        parameters = group["params"]
        v = _flat(probes)
        h = _flat(hessian) * v  # v * v is 1
        g = _flat([torch.zeros_like(p) if p.grad is None else p.grad for p in parameters])
        if self._scales is None:
            start = (v.numel() / h.square().sum().clamp_min(torch.finfo(h.dtype).tiny)) ** 0.25
            self._scales = (start * torch.ones_like(v), torch.zeros_like(v))
        self._scales = fitted(*self._scales, v, h, group["precondition_lr"])
        self._steps += 1
        past = group["momentum"]
        self._mean = (1 - past) * g if self._mean is None else past * self._mean + (1 - past) * g
        move = preconditioned(*self._scales, self._mean / (1 - past**self._steps))
        for parameter, part in zip(parameters, move.split([p.numel() for p in parameters]), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * part.view_as(parameter))


def fitted(
    a: torch.Tensor, b: torch.Tensor, v: torch.Tensor, h: torch.Tensor, rate: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of the fit of Q = diag(a) + antidiag(b): Q <- (1 - rate * E / |E|) Q.

    Math: E = (Q h)(Q h)^T - (Q^-T v)(Q^-T v)^T, of which the diagonal and the antidiagonal are kept. |E| is taken
    as the largest (Q h)^2 + (Q^-T v)^2; with the antidiagonal it is twice that at most.

    Args:
        a: [n]; of the diagonal.
        b: [n]; entry i stands in row i and column n - 1 - i. The middle of an odd n is 0.
        v: [n]; the probe.
        h: [n]; the Hessian times the probe.
        rate: of the step, from 0 to 1.
    """
    forward = a * h + b * h.flip(0)
    inverse = (a.flip(0) * v - b.flip(0) * v.flip(0)) / (a * a.flip(0) - b * b.flip(0))
    straight = forward.square() - inverse.square()
    across = forward * forward.flip(0) - inverse * inverse.flip(0)
    if len(a) % 2:
        across[len(a) // 2] = 0
    scale = (forward.square() + inverse.square()).max().clamp_min(torch.finfo(a.dtype).tiny)
    return (
        a - rate / scale * (straight * a + across * b.flip(0)),
        b - rate / scale * (straight * b + across * a.flip(0)),
    )


def preconditioned(a: torch.Tensor, b: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Q^T Q g for Q = diag(a) + antidiag(b), all [n]."""
    forward = a * g + b * g.flip(0)
    return a * forward + (b * forward).flip(0)


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
