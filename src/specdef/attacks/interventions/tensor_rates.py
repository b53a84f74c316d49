"""A learning rate per tensor, in proportion to the size of its weights: each tensor moves by the same share of itself.

A lock that inflates a tensor inflates the unit its weights are measured in, and a step of one size for every weight is
then too small there or too large elsewhere (the rule of LARS, You et al. 2017, with weights for gradients, as
Adafactor's relative steps have it, Shazeer and Stern 2018). Whoever holds the base weights takes their sizes, which no
lock has touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

from specdef.attacks.base_weights import HoldsBase, open_base
from specdef.attacks.scaled_steps import refuse_unrated, scale_steps
from specdef.training.recipe import Recipe

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TensorRates(HoldsBase):
    """Give every tensor a learning rate in proportion to the root mean square of its weights; the median's is as asked.

    Attributes:
        base: base weights whose sizes are taken instead, by name; tensors it lacks count by their own.
        digest: of the base's weights; see `HoldsBase`.
    """

    name: ClassVar[str] = "tensor-rates"
    knowledge: ClassVar[str] = "the sizes of the weights; with a base, the public base weights"
    needs_weights: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """Short text for tables."""
        of = self.digest[:8] or self.base
        return "a rate per tensor" + (f", by the sizes of base weights {of}" if of else "")

    def check(self, recipe: Recipe) -> None:
        """Refuse an optimizer whose step depends on the weights.

        Raises:
            SpecdefError: it does.
        """
        refuse_unrated(self.name, recipe)

    def attach(self, optimizer: Any, model: Any, folder: Path | None) -> None:
        """Put hooks on the optimizer.

        Raises:
            SpecdefError: the base weights are missing or changed.
        """
        sizes = _base_sizes(self.base, self.digest) if self.base or self.digest else {}
        named = {name: one for name, one in model.named_parameters() if one.requires_grad}
        scale_steps(optimizer, tensor_rates(named, sizes))


KIND = TensorRates


def tensor_rates(
    parameters: dict[str, torch.nn.Parameter], sizes: dict[str, float]
) -> dict[torch.nn.Parameter, torch.Tensor]:
    """Parameter -> what its learning rate is multiplied by: its size over the median size.

    Args:
        parameters: those that are trained, by name.
        sizes: root mean squares by name, used instead of a parameter's own. A tensor of zeros has no size: its rate
            stays as it is.
    """
    import torch

    own = {name: sizes.get(name, _size(parameter.detach())) for name, parameter in parameters.items()}
    middle = median([size for size in own.values() if size] or [1.0])
    return {one: torch.tensor(own[name] / middle if own[name] else 1.0) for name, one in parameters.items()}


def _size(tensor: torch.Tensor) -> float:
    return float(tensor.double().square().mean().sqrt())


def _base_sizes(base: str, digest: str) -> dict[str, float]:
    from specdef.linalg.exponent import NUMPY_DTYPES
    from specdef.locks.replaced import read_tensor

    checkpoint = open_base(base, digest)
    return {
        name: _size(read_tensor(checkpoint, shard, tensor))
        for name, (shard, tensor) in checkpoint.locate().items()
        if tensor.dtype in NUMPY_DTYPES
    }
