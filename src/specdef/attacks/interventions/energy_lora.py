"""LoRA in coordinates in which every input channel has unit energy: a hot channel gets no larger gradient or step.

A lock that scales a channel of the activations by a makes A's gradient there a times larger, and a step of A there
moves the output a times further. Dividing the gradient by the channel's root mean square input undoes the first
(peft issue 3073 reports the symptom); for the second the step must be divided as well. Both is what training
A diag(rms) instead of A does, with any optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from specdef.attacks.base import Intervention
from specdef.attacks.interventions.lora import Lora
from specdef.errors import SpecdefError
from specdef.models.base import Batch, LoadedModel
from specdef.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

PART = ".lora_A."


@dataclass(frozen=True)
class EnergyLora(Lora):
    """LoRA whose A is trained as A = T / rms, column by column; rms is measured over the recipe's first batch."""

    name: ClassVar[str] = "energy-lora"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != "LORA":
            raise SpecdefError(f"`kind` must be LORA with {self.name}; got {self.kind}.")

    @property
    def label(self) -> str:
        """Short text for tables."""
        return f"{super().label}, inputs of unit energy"

    def modify(self, loaded: LoadedModel, batch: Batch, recipe: Recipe) -> Any:
        """The model with adapters whose A takes inputs of unit energy."""
        from specdef.training.batches import batches

        model = super().modify(loaded, batch, recipe)
        first = next(batches(batch, recipe.batch_size, recipe.seed, loaded.kind))
        equalise(model, lambda: loaded.kind.loss(model, first))
        return model

    def to_wire(self) -> dict[str, Any]:
        """In the list: version 1's field for adapters is LoRA's."""
        return Intervention.to_wire(self)

    @classmethod
    def from_wire(cls, name: str, value: Any) -> Self | None:
        """No field of version 1 says this."""
        return None


KIND = EnergyLora


def equalise(model: Any, forward: Any) -> None:
    """Train T = A diag(e) in place of every A, with e the root mean squares of A's inputs.

    T starts as A did, so that what A first makes of its inputs has one size a channel too. B is 0 then: the model
    computes what it did.

    Args:
        model: with LoRA's adapters.
        forward: runs the model on some samples.
    """
    import torch
    from torch.nn.utils import parametrize

    class Columns(torch.nn.Module):
        energy: torch.Tensor

        def __init__(self, energy: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer("energy", energy, persistent=False)

        def forward(self, trained: torch.Tensor) -> torch.Tensor:
            return trained / self.energy.reshape(1, -1, *[1] * (trained.ndim - 2))

    layers = {name: one for name, one in model.named_modules() if PART in f"{name}." and hasattr(one, "weight")}
    with _energies(layers) as found, torch.no_grad():
        forward()
    for name, layer in layers.items():
        if name in found:
            energy = energy_of(found[name]).to(layer.weight)
            parametrize.register_parametrization(layer, "weight", Columns(energy), unsafe=True)


def energy_of(squares: torch.Tensor) -> torch.Tensor:
    """Root mean square of every channel; 1 for channels that are never anything but 0.

    Args:
        squares: mean squares [channels].

    Example:
        >>> import torch
        >>> energy_of(torch.tensor([4.0, 0.0, 4096.0])).tolist()
        [2.0, 1.0, 64.0]
    """
    return squares.double().sqrt().where(squares > 0, 1.0)


@contextmanager
def _energies(layers: dict[str, Any]) -> Iterator[dict[str, torch.Tensor]]:
    """Mean squares of the inputs of some layers by channel, filled while the model runs."""
    from torch.nn.modules.conv import _ConvNd

    found: dict[str, torch.Tensor] = {}

    def watching(name: str) -> Any:
        def watch(module: Any, inputs: Any) -> None:
            seen = inputs[0].detach().double()
            channels = 1 if isinstance(module, _ConvNd) else seen.ndim - 1
            found[name] = seen.square().mean(dim=[axis for axis in range(seen.ndim) if axis != channels])

        return watch

    hooks = [layer.register_forward_pre_hook(watching(name)) for name, layer in layers.items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
