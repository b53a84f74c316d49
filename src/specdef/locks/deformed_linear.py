"""The locked linear layer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from specdef.errors import PlanError
from specdef.linalg.compensation import TENSOR_NAMES, compensate, compute_dtype
from specdef.linalg.deform import Deformation
from specdef.locks.entry import LayerEntry


class DeformedLinear(nn.Module):
    """A linear layer whose weight is deformed and whose compensation is a layer of its own.

    Math: y = C (W~ x) + b on the output side, y = W~ (C x) + b on the input side. Both products run in
    `specdef.linalg.compensation.compute_dtype`, autocast off, and the result is cast back to x's dtype: rounding W~ x
    in a narrow dtype could not be undone. TensorFloat-32, where a program enables it, is such a narrow dtype for the
    float32 products of a bfloat16 checkpoint.

    W~ keeps the parameter name ``weight`` and b ``bias``; C is held under the names of
    `specdef.linalg.compensation.TENSOR_NAMES`, trainable like the injected layer of the paper (the index is a buffer).
    Casting the module (``.half()``, ``.to(torch.bfloat16)``) moves the bias alone. PEFT can put LoRA beside it once
    `specdef.locks.peft_layer.peft_layers` is registered with the ``LoraConfig``.

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

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        entry: LayerEntry,
        *,
        bias_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.entry = in_features, out_features, entry
        shape = (in_features, out_features) if entry.transposed else (out_features, in_features)
        weight_dtype, dtype = getattr(torch, entry.weight_dtype), getattr(torch, entry.dtype)
        self.weight = nn.Parameter(torch.empty(shape, dtype=weight_dtype, device=device))
        side = out_features if entry.side == "output" else in_features

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, dtype=dtype, device=device))

        if entry.form == "dense":
            self.compensation = parameter(side, side)
        elif entry.form == "low_rank":
            self.compensation_basis, self.compensation_scale = parameter(side, entry.rank), parameter(entry.rank)
        else:
            index = torch.empty(entry.rank, dtype=torch.int64, device=device)
            self.register_buffer("compensation_index", index)
            self.compensation_factor = parameter(entry.rank)
        bias = None if bias_dtype is None else nn.Parameter(torch.empty(out_features, dtype=bias_dtype, device=device))
        self.register_parameter("bias", bias)

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
        locked.load_state_dict({"weight": stored, **deformation.tensors}, assign=True)
        bias = module.bias
        assert bias is None or isinstance(bias, nn.Parameter)
        locked.register_parameter("bias", bias)
        return locked.train(module.training)

    def tensors(self) -> dict[str, Tensor]:
        """The compensation's tensors by state-dict name."""
        return {name: getattr(self, name) for name in TENSOR_NAMES[self.entry.form]}

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Apply the layer to the last axis of x; the result has x's dtype."""
        e, tensors = self.entry, self.tensors()
        dtype = compute_dtype(x.dtype, self.weight.dtype, tensors[TENSOR_NAMES[e.form][-1]].dtype, e.form)
        with _without_autocast(x.device.type):
            wide = x.to(dtype)
            weight = (self.weight.T if e.transposed else self.weight).to(dtype)
            bias = None if self.bias is None else self.bias.to(dtype)
            if e.side == "input":
                return functional.linear(compensate(wide, tensors), weight, bias).to(x.dtype)
            if e.form == "diagonal" and bias is not None:
                # Scaled like its row, the bias enters the same fused sum as in the original: exact for powers of two.
                bias = bias / compensate(torch.ones_like(bias), tensors)
                return compensate(functional.linear(wide, weight, bias), tensors).to(x.dtype)
            y = compensate(functional.linear(wide, weight), tensors)
            return (y if bias is None else y + bias).to(x.dtype)

    def extra_repr(self) -> str:
        """Sizes, side and form."""
        e = self.entry
        return f"{self.in_features}, {self.out_features}, side={e.side}, form={e.form}, rank={e.rank}, dtype={e.dtype}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move W~ and C but never cast them; the function would be lost with their last digits."""

        def move(tensor: Tensor) -> Tensor:
            if tensor is self.bias or (self.bias is not None and tensor is self.bias.grad):
                return fn(tensor)
            probe = fn(tensor.new_empty(0))
            return fn(tensor) if probe.dtype == tensor.dtype else tensor.to(probe.device)

        super()._apply(move, recurse)
        return self


@contextlib.contextmanager
def _without_autocast(device_type: str) -> Iterator[None]:
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        with torch.autocast(device_type, enabled=False):
            yield
    else:
        yield


def linear_weight(name: str, module: nn.Module) -> tuple[Tensor, bool]:
    """(weight as [out, in], whether it is stored [in, out])."""
    if type(module) is nn.Linear:
        return module.weight, False
    if type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils":
        weight = module.weight
        assert isinstance(weight, Tensor)
        return weight.T, True
    raise PlanError(
        f"`targets` must be nn.Linear or transformers Conv1D layers; got {type(module).__name__}"
        f"{f' at module {name}' if name else ''}. Choose another layer."
    )
