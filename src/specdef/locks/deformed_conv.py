"""The locked convolution."""

from __future__ import annotations

from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from specdef.errors import PlanError
from specdef.linalg.deform import Deformation
from specdef.locks.deformed import Deformed
from specdef.locks.entry import LayerEntry


class DeformedConv2d(Deformed):
    """A convolution, deformed as a matrix [out, in * height * width]: see `Deformed`.

    The layer is computed on unfolded patches, one vector of in * height * width numbers for every place of the output.
    On the output side C is a convolution of 1 x 1 that mixes output channels; on the input side it mixes what a patch
    holds, which no convolution of 1 x 1 could.

    Args:
        like: the convolution it stands for: its sizes, stride, padding and dilation.
        entry: dtypes, side and form.
        device: where the (uninitialised) tensors are made.

    Raises:
        PlanError: the convolution has groups, or pads with anything but zeros.

    Example:
        >>> from specdef.linalg.deform import deform
        >>> conv = nn.Conv2d(3, 4, 3, padding=1)
        >>> locked = DeformedConv2d.from_conv(conv, deform(conv.weight.detach().flatten(1), 2, 1e4))
        >>> x = torch.randn(2, 3, 5, 5)
        >>> torch.allclose(locked(x), conv(x), atol=1e-6)
        True
    """

    def __init__(self, like: nn.Conv2d, entry: LayerEntry, *, device: torch.device | str | None = None) -> None:
        refuse_conv("", like)
        out_channels, in_channels, height, width = like.weight.shape
        super().__init__(
            (out_channels, in_channels, height, width),
            (out_channels, in_channels * height * width),
            entry,
            bias_dtype=None if like.bias is None else like.bias.dtype,
            device=device,
        )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, (height, width)
        self.stride, self.dilation = _pair(like.stride), _pair(like.dilation)
        assert not isinstance(like.padding, str)
        self.padding = _pair(like.padding)

    @classmethod
    def from_conv(cls, module: nn.Conv2d, deformation: Deformation) -> Self:
        """The locked twin of a convolution, holding its bias.

        Args:
            module: the layer the deformed weight came from.
            deformation: of the weight as [out, in * height * width].

        Raises:
            PlanError: its shape is not the deformation's, or see the class.
        """
        shape = module.weight.shape
        if module.weight.flatten(1).shape != deformation.weight.shape:
            raise PlanError(
                f"`deformation` must have shape {list(module.weight.flatten(1).shape)}; got "
                f"{list(deformation.weight.shape)}. Deform this module's own weight [out, in * height * width]."
            )
        locked = cls(module, LayerEntry.of(deformation), device="meta")
        return locked.filled(deformation.weight.reshape(shape), deformation.tensors, module)

    def forward(self, x: Float[Tensor, "rows in height width"]) -> Float[Tensor, "rows out down across"]:
        """Apply the layer to images; the result has x's dtype."""
        patches = functional.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)
        sizes = (*x.shape[2:],)
        down, across = (
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, pad, dilation, kernel, stride in zip(
                sizes, self.padding, self.dilation, self.kernel_size, self.stride, strict=True
            )
        )
        y = self.product(patches.transpose(1, 2), self.weight.flatten(1))
        return y.transpose(1, 2).reshape(len(x), self.out_channels, down, across)

    def extra_repr(self) -> str:
        """Sizes, side and form."""
        e = self.entry
        sizes = f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, stride={self.stride}"
        return f"{sizes}, side={e.side}, form={e.form}, rank={e.rank}, dtype={e.dtype}"


def refuse_conv(name: str, module: nn.Conv2d, *, argument: str = "components") -> None:
    """Refuse a convolution that is no one matrix applied to every patch.

    Args:
        name: of the module; "" where it has none.
        module: the convolution.
        argument: what the user chose it by.

    Raises:
        PlanError: it has groups, or pads with anything but a number of zeros.
    """
    if module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return
    which = f"module {name}" if name else "one"
    raise PlanError(
        f"`{argument}` must be convolutions without groups that pad with a number of zeros; got {which} with groups "
        f"{module.groups}, padding {module.padding!r} and padding_mode {module.padding_mode}. Choose other layers."
    )


def _pair(sizes: int | tuple[int, ...]) -> tuple[int, int]:
    return (sizes, sizes) if isinstance(sizes, int) else (sizes[0], sizes[1])
