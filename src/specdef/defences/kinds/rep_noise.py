"""`rep-noise`: representation noising: what MLPs pass on of the forget rows becomes Gaussian noise, in every layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.defences.base import Given
from specdef.defences.hidden import hidden_states, layer_of
from specdef.defences.objective import Objective, Rows, TrainingOptions, require
from specdef.defences.trained import ObjectiveDefence
from specdef.errors import SpecdefError

if TYPE_CHECKING:
    import torch

KERNELS = 5
"""Gaussian kernels of the discrepancy; each is twice as wide as the one before, the third as wide as the data."""
MLPS = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "fc2")
"""What families call a layer's MLP, or the last module of one."""
NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm")
"""What families call the norm behind the last layer."""


@dataclass(frozen=True)
class RepNoiseOptions(TrainingOptions):
    """Options of `rep-noise`, with the values of the published code.

    Attributes:
        alpha: weight of the ascent on the forget rows.
        beta: weight of the distance to noise.
    """

    lr: float = 2e-5
    alpha: float = 1.0
    beta: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.alpha >= 0, "alpha", "be 0 or more", self.alpha)
        require(self.beta >= 0, "beta", "be 0 or more", self.beta)


class RepNoiseObjective(Objective):
    """NLL(retain) + beta mean MMD(MLP outputs of the forget rows, noise) - alpha log(1 + mean lens loss(forget)).

    Math: Rosati et al. 2024, "Representation noising: a defence mechanism against harmful finetuning": stability, noise
    and ascent, as the published code computes them. Both means are over layers. A layer's lens loss is the
    cross-entropy of the forget rows' labelled tokens when its output goes straight to the final norm and the head;
    the last layer's is the model's own (the published code norms it twice, and counts the embeddings as a layer). A
    row is one sample of the discrepancy, its tokens side by side; noise has variance 1; padding is 0 in both. What is
    real is what the mask says: the published code drops token 0, which is a word in many vocabularies.

    The method's pairs of a harmful and a harmless answer to one question are not needed: rows to forget and to keep
    are independent here, and all tokens of a row count.
    """

    def __init__(self, given: Given, options: RepNoiseOptions) -> None:
        self.model, self.kind = given.loaded.model, given.loaded.kind
        self.alpha, self.beta = options.alpha, options.beta
        self.norm, self.head = _final_norm(self.model), self.model.get_output_embeddings()
        self.mlps = _mlps(self.model)

    def forget_terms(self, forget: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean discrepancy from noise, mean lens loss in nats per token), of one forward pass."""
        import torch
        from torch.utils.checkpoint import checkpoint

        with self._outputs() as outputs:
            states = hidden_states(self.model, forget.batch)
        _, labels, mask = (tensor.to(states[0].device) for tensor in forget.batch)
        distances = []
        for output in outputs:
            flat = (output.reshape(*mask.shape, -1) * mask[..., None]).flatten(1)
            noise = (torch.randn_like(output).reshape(*mask.shape, -1) * mask[..., None]).flatten(1)
            distances.append(mmd(flat, noise))
        targets = labels[:, 1:]
        kept = targets != -100

        def lens(state: torch.Tensor, last: bool) -> torch.Tensor:
            logits = self.head(state if last else self.norm(state))
            return torch.nn.functional.cross_entropy(logits.float(), targets[kept])

        # The logits of all layers at once would take more memory than the model; each is made again on the way back.
        losses = [
            checkpoint(lens, state[:, :-1][kept], number == len(states) - 1, use_reentrant=False)
            for number, state in enumerate(states)
            if number
        ]
        return torch.stack(distances).mean(), torch.stack(losses).mean()

    def loss(self, step: int, forget: Rows, retain: Rows) -> torch.Tensor:
        """See the class."""
        distance, lens = self.forget_terms(forget)
        kept = self.kind.loss(self.model, retain.batch)
        return kept + self.beta * distance - self.alpha * (1 + lens).log()

    @contextmanager
    def _outputs(self) -> Iterator[list[torch.Tensor]]:
        """Every MLP's output of the forward pass within; the hooks are gone afterwards."""
        found: list[torch.Tensor] = []

        def keep(module: Any, inputs: Any, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)

        hooks = [module.register_forward_hook(keep) for module in self.mlps]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()


def mmd(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Maximum mean discrepancy of two samples: the mean of k(x, x') + k(y, y') - 2 k(x, y), k a sum of Gaussians.

    Args:
        x: [n, features].
        y: [n, features].

    Returns:
        0 where the samples are the same; its gradient does not flow through the width of the kernels, which is the
        mean squared distance of two different samples.
    """
    import torch

    both = torch.cat([x, y])
    squares = (both * both).sum(-1)
    distances = (squares[:, None] + squares[None] - 2 * both @ both.T).clamp_min(0)
    width = distances.detach().sum() / (len(both) ** 2 - len(both))
    kernel = sum(torch.exp(-distances / (width * 2.0 ** (number - KERNELS // 2))) for number in range(KERNELS))
    assert isinstance(kernel, torch.Tensor)
    n = len(x)
    return (kernel[:n, :n] + kernel[n:, n:] - kernel[:n, n:] - kernel[n:, :n]).mean()


def _mlps(model: Any) -> list[Any]:
    """The first module of such a name in every layer that has one."""
    found: dict[int, Any] = {}
    for path, module in model.named_modules():
        layer = layer_of(path)
        if layer is not None and path.rsplit(".", 1)[-1] in MLPS:
            found.setdefault(layer, module)
    if not found:
        raise SpecdefError(f"`model` must have MLPs in its layers, named {', '.join(MLPS)}; it has none.")
    return list(found.values())


def _final_norm(model: Any) -> Any:
    base = model.base_model
    for place in (base, getattr(base, "decoder", None)):
        for name in NORMS:
            if (norm := getattr(place, name, None)) is not None:
                return norm
    raise SpecdefError(f"`model` must have a norm behind its last layer, named {', '.join(NORMS)}; it has none.")


class RepNoise(ObjectiveDefence):
    """Representation noising (Rosati et al. 2024)."""

    name = "rep-noise"
    summary = "turns what layers say of the forget rows into noise"
    Options = RepNoiseOptions

    def objective(self, given: Given, options: Any) -> Objective:
        """All weights are trained."""
        return RepNoiseObjective(given, options)


KIND = RepNoise()
