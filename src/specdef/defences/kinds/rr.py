"""`rr`: representation rerouting (circuit breakers): hidden states of the forget rows turn away from what they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.defences.adapters import AdapterObjective, AdapterOptions, with_adapters
from specdef.defences.base import Given
from specdef.defences.hidden import chosen_layers, hidden_states, layer_count, mean_distance, token_mean
from specdef.defences.objective import Objective, Rows, require
from specdef.defences.trained import ObjectiveDefence

if TYPE_CHECKING:
    import torch

    from specdef.models.base import Batch


@dataclass(frozen=True)
class RrOptions(AdapterOptions):
    """Options of `rr`, with the values of the paper's runs.

    Attributes:
        layers: whose outputs are rerouted, from 0; those at a third and two thirds of the depth when empty (the
            paper's are the 10th and the 20th of 32).
        rank: of the adapters, which stand in every layer up to the last of `layers`.
        alpha: what the weights of both terms sum to at every step.
        kick: standard deviation of the adapters' B at the start. At 0 the cosine is 1 and its gradient nothing: in
            bfloat16 rounding gets training going, in float32 this must.
    """

    steps: int = 150
    lr: float = 1e-4
    layers: tuple[int, ...] = ()
    rank: int = 16
    alpha: float = 10.0
    kick: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rank >= 1, "rank", "be at least 1", self.rank)
        require(self.alpha > 0, "alpha", "be above 0", self.alpha)
        require(self.kick >= 0, "kick", "be 0 or more", self.kick)


class RrObjective(AdapterObjective):
    """c_r mean |h - h0| on the retain rows + c_s mean relu(cos(h, h0)) on the forget rows; h0 the given model's.

    Math: Zou et al. 2024, "Improving alignment and robustness with circuit breakers", algorithm 1. Means are over
    tokens that are no padding; the first over the outputs of all layers and the embeddings as well, as the published
    code has it, the second over the chosen layers. c_r rises from 0 to alpha while c_s falls from alpha to 0, over
    *all* steps: the published code divides by twice as many, and ends half-way.
    """

    def __init__(self, given: Given, options: RrOptions) -> None:
        model = given.loaded.model
        self.layers = chosen_layers(options.layers, default_layers(layer_count(model)), model)
        self.alpha, self.steps = options.alpha, options.steps
        self.model = with_adapters(
            given.loaded,
            range(max(self.layers) + 1),
            rank=options.rank,
            lora_alpha=options.lora_alpha,
            targets=options.targets,
        )
        self._kick(options.kick, given.seed)

    def _kick(self, size: float, seed: int) -> None:
        import torch

        draw = torch.Generator().manual_seed(seed)
        for name, parameter in self.model.named_parameters():
            if "lora_B" in name:
                parameter.data += (size * torch.randn(parameter.shape, generator=draw)).to(parameter)

    def weights(self, step: int) -> tuple[float, float]:
        """(c_r, c_s) of a step."""
        progress = step / max(1, self.steps - 1)
        return self.alpha * progress, self.alpha * (1 - progress)

    def moved(self, retain: Rows) -> torch.Tensor:
        """Mean distance of the retain rows' hidden states from the given model's."""
        with self.given_model():
            before = hidden_states(self.model, retain.batch)
        return mean_distance(hidden_states(self.model, retain.batch), before, retain.batch[2])

    def alike(self, forget: Rows) -> torch.Tensor:
        """Mean of the positive part of the forget rows' cosine to the given model's hidden states; 1 at the start."""
        import torch

        with self.given_model():
            before = self._chosen(forget.batch)
        after = self._chosen(forget.batch)
        mask = forget.batch[2].to(after[0].device)
        cosines = [torch.cosine_similarity(a, b, dim=-1).relu() for a, b in zip(after, before, strict=True)]
        return torch.stack([token_mean(cosine, mask) for cosine in cosines]).mean()

    def _chosen(self, batch: Batch) -> list[torch.Tensor]:
        states = hidden_states(self.model, batch)
        return [states[layer + 1] for layer in self.layers]

    def loss(self, step: int, forget: Rows, retain: Rows) -> torch.Tensor:
        """See the class."""
        kept, rerouted = self.weights(step)
        return kept * self.moved(retain) + rerouted * self.alike(forget)


def default_layers(count: int) -> tuple[int, ...]:
    """Those at a third and two thirds of the depth, from 0."""
    return tuple(sorted({-(-count // 3) - 1, -(-2 * count // 3) - 1}))


class Rr(ObjectiveDefence):
    """Representation rerouting, known as circuit breakers (Zou et al. 2024)."""

    name = "rr"
    summary = "circuit breakers: hidden states of the forget rows are turned away"
    Options = RrOptions

    def objective(self, given: Given, options: Any) -> Objective:
        """Adapters are trained, and merged at the end."""
        return RrObjective(given, options)


KIND = Rr()
