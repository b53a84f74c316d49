"""Steps of another size for some parameters: what a learning rate of their own would do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from specdef.errors import SpecdefError
from specdef.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

RATED_OPTIMIZERS = ("adamw", "lion")
"""Optimizers whose step does not depend on the weights, weight decay apart."""


def refuse_unrated(name: str, recipe: Recipe) -> None:
    """Refuse a recipe whose optimizer's step depends on the weights.

    Args:
        name: of the intervention.
        recipe: what it is given with.

    Raises:
        SpecdefError: it does.
    """
    if recipe.optimizer not in RATED_OPTIMIZERS:
        known = " or ".join(RATED_OPTIMIZERS)
        raise SpecdefError(f"`{name}` must be given with optimizer {known}; got {recipe.optimizer}.")


def scale_steps(optimizer: torch.optim.Optimizer, rates: Mapping[torch.nn.Parameter, torch.Tensor]) -> None:
    """Multiply every step of some parameters by a factor. Weight decay, decoupled as in AdamW, stays as it is.

    Args:
        optimizer: of `RATED_OPTIMIZERS`; hooks are put on it.
        rates: parameter -> factor, of a shape that broadcasts to it; parameters that are not trained are left out.
    """
    import torch

    groups = {id(member): group for group in optimizer.param_groups for member in group["params"]}
    scaled = [(one, rate.to(one), groups[id(one)]) for one, rate in rates.items() if id(one) in groups]
    before: list[torch.Tensor] = []

    def remember(*hooked: object) -> None:
        """Set the weights to 0 for the step: beside a large weight, a small update would be rounded away."""
        before[:] = [parameter.detach().clone() for parameter, _, _ in scaled]
        with torch.no_grad():
            for parameter, _, _ in scaled:
                parameter.zero_()

    def rescale(*hooked: object) -> None:
        with torch.no_grad():
            for (parameter, rate, group), old in zip(scaled, before, strict=True):
                kept = 1 - group["lr"] * group.get("weight_decay", 0.0)
                parameter.copy_(old * kept + rate * parameter)
        before.clear()

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(rescale)
