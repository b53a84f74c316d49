"""`npo`: negative preference optimisation: the forget rows as answers that are never preferred."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.defences.base import Given
from specdef.defences.descent import evaluating
from specdef.defences.objective import Objective, Rows, TrainingOptions, require
from specdef.defences.trained import ObjectiveDefence

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class NpoOptions(TrainingOptions):
    """Options of `npo`.

    Attributes:
        beta: inverse temperature; towards 0 the method becomes `grad-diff` on sums.
        gamma: weight of the loss on what is kept.
    """

    beta: float = 0.1
    gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, "beta", "be above 0", self.beta)
        require(self.gamma >= 0, "gamma", "be 0 or more", self.gamma)


class NpoObjective(Objective):
    """-(2 / beta) E log sigmoid(beta (L - L_ref)) + gamma NLL(retain); L a row's loss, summed over its tokens.

    Math: Zhang, Lin, Bai and Mei 2024, equation 3: L - L_ref = -log(p / p_ref) of the whole answer. The mean over
    tokens in its place is another method: long answers would weigh no more than short ones.
    """

    def __init__(self, given: Given, options: NpoOptions) -> None:
        assert given.data_rows is not None
        self.model, self.kind = given.loaded.model, given.loaded.kind
        self.beta, self.gamma = options.beta, options.gamma
        self.reference = self._sums(given.data_rows.forget)

    def _sums(self, rows: Any, size: int = 32) -> torch.Tensor:
        """The given model's loss of every forget row [rows], summed over its tokens; it is needed once."""
        import torch

        with evaluating(self.model):
            count = len(rows[0])
            parts = [
                self.kind.row_losses(self.model, self.kind.batch(rows, range(start, min(start + size, count))))[0]
                for start in range(0, count, size)
            ]
        return torch.cat(parts)

    def forget_loss(self, forget: Rows) -> torch.Tensor:
        """The first term."""
        import torch

        losses, _ = self.kind.row_losses(self.model, forget.batch)
        ratio = losses - self.reference[list(forget.chosen)]
        return -2 / self.beta * torch.nn.functional.logsigmoid(self.beta * ratio).mean()

    def retain_loss(self, retain: Rows) -> torch.Tensor:
        """The second term."""
        return self.gamma * self.kind.loss(self.model, retain.batch)

    def loss(self, step: int, forget: Rows, retain: Rows) -> torch.Tensor:
        """See the class."""
        return self.forget_loss(forget) + self.retain_loss(retain)


class Npo(ObjectiveDefence):
    """Negative preference optimisation with a retain loss (Zhang, Lin, Bai and Mei 2024)."""

    name = "npo"
    summary = "negative preference optimisation on the forget rows"
    Options = NpoOptions
    model_kinds = ("causal-lm", "image-classifier")

    def objective(self, given: Given, options: Any) -> Objective:
        """All weights are trained; the given model's losses are the reference."""
        return NpoObjective(given, options)


KIND = Npo()
