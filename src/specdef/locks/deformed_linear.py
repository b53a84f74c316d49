"""The locked linear layer."""

from __future__ import annotations

from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from specdef.errors import PlanError
from specdef.linalg.deform import Deformation
from specdef.locks.deformed import Deformed
from specdef.locks.entry import LayerEntry


class DeformedLinear(Deformed):
    """A linear layer, deformed: see `Deformed`.

    PEFT can put LoRA beside it once `specdef.locks.peft_layer.peft_layers` is registered with the ``LoraConfig``.

    Args:
        in_features: length of x's last axis.
        out_features: length of y's last axis.
        entry: dtypes, side and form.
        bias_dtype: dtype of b; None for no bias.
        device: where the (uninitialised) tensors are made.

    Example:
        >>> from specdef.linalg.deform import deform
        >>> linear = nn.Linear(6, 4)
        >>> locked = DeformedLinear.from_linear(linear, deform(linear.weight.detach(), 2, 1e6))
        >>> x = torch.randn(3, 6)
        >>> torch.allclose(locked(x), linear(x), atol=1e-6)
        True
        >>> sorted(locked.state_dict())
        ['bias', 'compensation', 'weight']
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        entry: LayerEntry,
        *,
        bias_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        shape = (in_features, out_features) if entry.transposed else (out_features, in_features)
        super().__init__(shape, (out_features, in_features), entry, bias_dtype=bias_dtype, device=device)
        self.in_features, self.out_features = in_features, out_features

    @classmethod
    def from_linear(cls, module: nn.Module, deformation: Deformation) -> Self:
        """The locked twin of an ``nn.Linear`` or a transformers ``Conv1D``, holding its bias.

        Args:
            module: the layer the deformed weight came from.
            deformation: of the weight as [out, in].

        Raises:
            PlanError: the module is neither, or its shape is not the deformation's.
        """
        weight, transposed = linear_weight("", module)
        if weight.shape != deformation.weight.shape:
            raise PlanError(
                f"`deformation` must have shape {list(weight.shape)}; got {list(deformation.weight.shape)}. "
                "Deform this module's own weight [out, in]."
            )
        out_features, in_features = weight.shape
        entry = LayerEntry.of(deformation, transposed=transposed)
        locked = cls(in_features, out_features, entry, device="meta")
        stored = deformation.weight.T.contiguous() if transposed else deformation.weight
        return locked.filled(stored, deformation.tensors, module)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Apply the layer to the last axis of x; the result has x's dtype."""
        return self.product(x, self.weight.T if self.entry.transposed else self.weight)

    def extra_repr(self) -> str:
        """Sizes, side and form."""
        e = self.entry
        return f"{self.in_features}, {self.out_features}, side={e.side}, form={e.form}, rank={e.rank}, dtype={e.dtype}"


def linear_weight(name: str, module: nn.Module) -> tuple[Tensor, bool]:
    """(weight as [out, in], whether it is stored [in, out])."""
    if type(module) is nn.Linear:
        return module.weight, False
    if type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils":
        weight = module.weight
        assert isinstance(weight, Tensor)
        return weight.T, True
    raise PlanError(
        f"`targets` must be nn.Linear, transformers Conv1D or nn.Conv2d layers; got {type(module).__name__}"
        f"{f' at module {name}' if name else ''}. Choose another layer."
    )
