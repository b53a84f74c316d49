"""`npo-sam`: `npo` whose forget gradient is taken where the forget loss is worst nearby (sharpness-aware)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specdef.defences.base import Given
from specdef.defences.kinds.npo import NpoObjective, NpoOptions
from specdef.defences.objective import Objective, Rows, require
from specdef.defences.trained import ObjectiveDefence


@dataclass(frozen=True)
class NpoSamOptions(NpoOptions):
    """Options of `npo-sam`, with the values of the paper's WMDP runs.

    Attributes:
        rho: length of the step to the worst weights nearby.
    """

    beta: float = 0.015
    gamma: float = 2.25
    rho: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rho >= 0, "rho", "be 0 or more", self.rho)


class NpoSamObjective(NpoObjective):
    """The gradient of the forget loss at w + rho g / |g|, g its gradient at w, and that of the retain loss at w.

    Math: Fan et al. 2025, "Towards LLM unlearning resilient to relearning attacks", equation 6.
    """

    def __init__(self, given: Given, options: NpoSamOptions) -> None:
        super().__init__(given, options)
        self.rho = options.rho

    def backward(self, step: int, forget: Rows, retain: Rows) -> float:
        """Three gradients; the weights come back to the bit, and no gradient overwrites another."""
        import torch

        trained = [p for p in self.model.parameters() if p.requires_grad]
        loss = self.forget_loss(forget)
        first = torch.autograd.grad(loss, trained)
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in first]))
        if self.rho and float(norm):
            weights = [p.detach().clone() for p in trained]
            with torch.no_grad():
                for parameter, gradient in zip(trained, first, strict=True):
                    parameter += self.rho / norm * gradient
            first = torch.autograd.grad(self.forget_loss(forget), trained)
            with torch.no_grad():
                for parameter, weight in zip(trained, weights, strict=True):
                    parameter.copy_(weight)
        kept = self.retain_loss(retain)
        kept.backward()
        for parameter, gradient in zip(trained, first, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return float(loss.detach() + kept.detach())


class NpoSam(ObjectiveDefence):
    """Negative preference optimisation with sharpness-aware minimisation (Fan et al. 2025)."""

    name = "npo-sam"
    summary = "npo, flat: its gradient taken at the worst weights nearby"
    Options = NpoSamOptions

    def objective(self, given: Given, options: Any) -> Objective:
        """All weights are trained."""
        return NpoSamObjective(given, options)


KIND = NpoSam()
