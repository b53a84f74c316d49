"""`imma`: immunisation against adaptation: adapters learn the concept, and the weights beneath unlearn under them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from specdef.defences.base import Given
from specdef.defences.objective import Objective, Rows, TrainingOptions, only, require
from specdef.defences.trained import ObjectiveDefence

if TYPE_CHECKING:
    import torch

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
DECAY = 0.01
"""Weight decay of the adapters' AdamW."""


@dataclass(frozen=True)
class ImmaOptions(TrainingOptions):
    """Options of `imma`, with the values of the published code.

    Attributes:
        rank: of the adapters.
        inner_lr: learning rate of the adapters.
        inner_steps: of the adapters before each step of the weights.
    """

    steps: int = 500
    lr: float = 1e-5
    batch_size: int = 1
    rank: int = 4
    inner_lr: float = 1e-4
    inner_steps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rank >= 1, "rank", "be 1 or more", self.rank)
        require(0 < self.inner_lr < 1, "inner_lr", "be between 0 and 1", self.inner_lr)
        require(self.inner_steps >= 0, "inner_steps", "be 0 or more", self.inner_steps)


class ImmaObjective(Objective):
    """-L(forget) at the weights with adapters, which first took steps of their own towards L; L the denoising loss.

    Math: Zheng and Yeh 2024, "IMMA: immunizing text-to-image models against malicious adaptation", algorithm 1, first
    order, as the published code computes it: adapters W + B A beside every attention matrix of the U-Net are kept from
    step to step, and only the matrices beneath are trained here. A starts from N(0, 1 / rank^2), B from 0. The adapters
    take their steps on rows to forget that are drawn anew. The code does not hold what others need; the utility budget
    ends it here.
    """

    def __init__(self, given: Given, options: ImmaOptions) -> None:
        import torch

        assert given.data_rows is not None
        self.model, self.kind, self.options = given.loaded.model, given.loaded.kind, options
        self.rows = given.data_rows.forget
        self.layers = {
            f"unet.{path}": module
            for path, module in self.model.unet.named_modules()
            if path.endswith(ATTENTION) and ".attn" in path
        }
        only(
            self.model,
            [f"{path}.{name}" for path, layer in self.layers.items() for name, _ in layer.named_parameters()],
        )
        draw = torch.Generator().manual_seed(given.seed)
        self.adapters: dict[str, torch.Tensor] = {}
        for path, layer in self.layers.items():
            down = torch.randn((options.rank, layer.in_features), generator=draw) / options.rank
            up = torch.zeros(layer.out_features, options.rank)
            for part, value in (("down", down), ("up", up)):
                self.adapters[f"{path}.{part}"] = value.to(layer.weight.device).requires_grad_()
        self.inner = torch.optim.AdamW(list(self.adapters.values()), lr=options.inner_lr, weight_decay=DECAY)

    @contextmanager
    def adapted(self) -> Iterator[None]:
        """The model with its adapters; the hooks are gone afterwards."""

        def beside(path: str) -> Any:
            down, up = self.adapters[f"{path}.down"], self.adapters[f"{path}.up"]
            return lambda module, inputs, output: output + inputs[0] @ down.T @ up.T

        hooks = [layer.register_forward_hook(beside(path)) for path, layer in self.layers.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def attack(self, size: int) -> None:
        """The adapters' own steps: the weights' gradients are left as they were."""
        import torch

        for _ in range(self.options.inner_steps):
            chosen = torch.randint(len(self.rows[0]), (size,)).tolist()
            with self.adapted():
                loss = self.kind.loss(self.model, self.kind.batch(self.rows, chosen))
            gradients = torch.autograd.grad(loss, list(self.adapters.values()))
            for adapter, gradient in zip(self.adapters.values(), gradients, strict=True):
                adapter.grad = gradient
            self.inner.step()

    def loss(self, step: int, forget: Rows, retain: Rows) -> torch.Tensor:
        """See the class."""
        self.attack(len(forget.chosen))
        for adapter in self.adapters.values():
            adapter.requires_grad_(False)
        try:
            with self.adapted():
                return -self.kind.loss(self.model, forget.batch)
        finally:
            for adapter in self.adapters.values():
                adapter.requires_grad_()

    def state(self) -> dict[str, torch.Tensor]:
        """The adapters and what their optimizer keeps of them."""
        found = {name: adapter.detach().clone() for name, adapter in self.adapters.items()}
        for name, adapter in self.adapters.items():
            found |= {f"{name}:{key}": value.clone() for key, value in self.inner.state[adapter].items()}
        return found

    def go_on(self, state: dict[str, torch.Tensor]) -> None:
        """See `Objective`."""
        for name, adapter in self.adapters.items():
            adapter.data.copy_(state[name])
            kept = {key.rpartition(":")[2]: value.clone() for key, value in state.items() if key.startswith(f"{name}:")}
            if kept:  # the count of steps stays on the CPU, where AdamW keeps it
                beside = {key: value.to(adapter.device) for key, value in kept.items() if key != "step"}
                self.inner.state[adapter] = kept | beside


class Imma(ObjectiveDefence):
    """Immunisation against malicious adaptation (Zheng and Yeh 2024)."""

    name = "imma"
    summary = "unlearns a concept under adapters that learn it"
    Options = ImmaOptions
    model_kinds: ClassVar[tuple[str, ...]] = ("diffusion",)

    def objective(self, given: Given, options: Any) -> Objective:
        """The U-Net's attention matrices are trained."""
        return ImmaObjective(given, options)


KIND = Imma()
