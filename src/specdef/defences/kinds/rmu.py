"""`rmu`: representation misdirection: what is to be forgotten is steered to a random direction in mid-model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.defences.base import Given
from specdef.defences.descent import evaluating
from specdef.defences.hidden import chosen_layer, hidden_states, layer_count, mlp_outputs, token_mean
from specdef.defences.objective import Objective, Rows, TrainingOptions, only, require
from specdef.defences.trained import ObjectiveDefence

if TYPE_CHECKING:
    import torch

    from specdef.models.base import Batch

TRAINED = 3
"""Layers whose MLP is trained: the steered one and those before it."""


@dataclass(frozen=True)
class RmuOptions(TrainingOptions):
    """Options of `rmu`.

    Attributes:
        layer: whose output is steered, from 0; a quarter of the depth when None (7 of 32 in the paper).
        coefficient: length of the direction what is forgotten is steered to. The paper's 6.5 is for Zephyr-7B.
        alpha: weight of what is kept, 1200 in the paper.
    """

    lr: float = 5e-5
    layer: int | None = None
    coefficient: float = 20.0
    alpha: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.coefficient > 0, "coefficient", "be above 0", self.coefficient)
        require(self.alpha >= 0, "alpha", "be 0 or more", self.alpha)


class RmuObjective(Objective):
    """MSE(h(forget), c u) + alpha MSE(h(retain), h0(retain)); h a layer's output, u a random unit vector.

    Math: Li et al. 2024 (WMDP), section 4: means over tokens and hidden units; padding is no token. The entries of u
    are uniform in [0, 1] before it is scaled. Three tensors are trained: the projections out of the MLPs of the layer
    and of the two before it. They are found by name: the published code takes the sixth tensor of each layer, which
    is another one where layers have biases.
    """

    def __init__(self, given: Given, options: RmuOptions) -> None:
        import torch

        self.model = given.loaded.model
        self.layer = chosen_layer(options.layer, layer_count(self.model) // 4, self.model)
        only(self.model, mlp_outputs(self.model, range(max(0, self.layer - TRAINED + 1), self.layer + 1)))
        draw = torch.Generator().manual_seed(given.seed)
        width = self.model.get_input_embeddings().embedding_dim
        device = next(self.model.parameters()).device
        direction = torch.rand(width, generator=draw).to(device)
        self.target = options.coefficient * direction / direction.norm()
        self.alpha = options.alpha
        self.given = {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}

    def reference(self, batch: Batch) -> torch.Tensor:
        """The given model's hidden states of a batch [rows, tokens, hidden]: its three tensors are put back for it."""
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        now = {name: parameter.data for name, parameter in trained.items()}
        try:
            for name, parameter in trained.items():
                parameter.data = self.given[name]
            with evaluating(self.model):
                return self._hidden(batch)
        finally:
            for name, parameter in trained.items():
                parameter.data = now[name]

    def _hidden(self, batch: Batch) -> torch.Tensor:
        return hidden_states(self.model, batch)[self.layer + 1]

    def loss(self, step: int, forget: Rows, retain: Rows) -> torch.Tensor:
        """See the class."""
        reference = self.reference(retain.batch)
        steered, kept = self._hidden(forget.batch), self._hidden(retain.batch)
        away = ((steered - self.target) ** 2).mean(-1)
        moved = ((kept - reference) ** 2).mean(-1)
        masks = [rows.batch[2].to(steered.device) for rows in (forget, retain)]
        return token_mean(away, masks[0]) + self.alpha * token_mean(moved, masks[1])


class Rmu(ObjectiveDefence):
    """Representation misdirection for unlearning (Li et al. 2024, "The WMDP benchmark")."""

    name = "rmu"
    summary = "steers hidden states of the forget rows to a random direction"
    Options = RmuOptions

    def objective(self, given: Given, options: Any) -> Objective:
        """Three MLP projections are trained."""
        return RmuObjective(given, options)


KIND = Rmu()
