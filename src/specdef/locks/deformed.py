"""What locked layers share: a deformed weight, its compensation, and the products of both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from specdef.linalg.compensation import TENSOR_NAMES, compensate, compute_dtype
from specdef.locks.entry import LayerEntry


class Deformed(nn.Module):
    """A layer whose weight is deformed and whose compensation is a layer of its own.

    Math: y = C (W~ x) + b on the output side, y = W~ (C x) + b on the input side. Both products run in
    `specdef.linalg.compensation.compute_dtype`, autocast off, and the result is cast back to x's dtype: rounding W~ x
    in a narrow dtype could not be undone. TensorFloat-32, where a program enables it, is such a narrow dtype for the
    float32 products of a bfloat16 checkpoint.

    W~ keeps the parameter name ``weight`` and b ``bias``; C is held under the names of
    `specdef.linalg.compensation.TENSOR_NAMES`, trainable like the injected layer of the paper (the index is a buffer).
    Casting the module (``.half()``, ``.to(torch.bfloat16)``) moves the bias alone.

    Args:
        shape: of W~ as stored.
        sizes: rows and columns of W~ as a matrix [out, in].
        entry: dtypes, side and form.
        bias_dtype: dtype of b; None for no bias.
        device: where the (uninitialised) tensors are made.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        shape: tuple[int, ...],
        sizes: tuple[int, int],
        entry: LayerEntry,
        *,
        bias_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.entry = entry
        weight_dtype, dtype = getattr(torch, entry.weight_dtype), getattr(torch, entry.dtype)
        self.weight = nn.Parameter(torch.empty(shape, dtype=weight_dtype, device=device))
        side = sizes[0] if entry.side == "output" else sizes[1]

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
        bias = None if bias_dtype is None else nn.Parameter(torch.empty(sizes[0], dtype=bias_dtype, device=device))
        self.register_parameter("bias", bias)

    def filled(self, stored: Tensor, tensors: Mapping[str, Tensor], like: nn.Module) -> Self:
        """This layer with numbers: W~ as stored and C's tensors, and the bias and mode of the layer it stands for."""
        self.register_parameter("bias", None)
        self.load_state_dict({"weight": stored, **tensors}, assign=True)
        bias = like.bias
        assert bias is None or isinstance(bias, nn.Parameter)
        self.register_parameter("bias", bias)
        return self.train(like.training)

    def tensors(self) -> dict[str, Tensor]:
        """The compensation's tensors by state-dict name."""
        return {name: getattr(self, name) for name in TENSOR_NAMES[self.entry.form]}

    def product(self, x: Float[Tensor, "*batch in"], matrix: Float[Tensor, "out in"]) -> Float[Tensor, "*batch out"]:
        """The layer on the last axis of x, with W~ as a matrix; the result has x's dtype."""
        e, tensors = self.entry, self.tensors()
        dtype = compute_dtype(x.dtype, self.weight.dtype, tensors[TENSOR_NAMES[e.form][-1]].dtype, e.form)
        with _without_autocast(x.device.type):
            wide = x.to(dtype)
            weight = matrix.to(dtype)
            bias = None if self.bias is None else self.bias.to(dtype)
            if e.side == "input":
                return functional.linear(compensate(wide, tensors), weight, bias).to(x.dtype)
            if e.form == "diagonal" and bias is not None:
                # Scaled like its row, the bias enters the same fused sum as in the original: exact for powers of two.
                bias = bias / compensate(torch.ones_like(bias), tensors)
                return compensate(functional.linear(wide, weight, bias), tensors).to(x.dtype)
            y = compensate(functional.linear(wide, weight), tensors)
            return (y if bias is None else y + bias).to(x.dtype)

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
