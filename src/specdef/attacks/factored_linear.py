"""A linear layer held as a chain of trainable factors: what layer injection puts in a locked layer's place."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from specdef.errors import SpecdefError

FACTORED_VERSION = 2
"""Version of config.json's ``quantization_config`` where it lists factored layers: an older reader must refuse it."""
DTYPES = ("float32", "bfloat16", "float64")


@dataclass(frozen=True)
class FactorEntry:
    """What config.json says of one factored layer, enough to build it before its tensors load.

    Attributes:
        shapes: of each factor [out, in], in the order they are applied.
        dtypes: of each factor.
        transposed: the layer stood for stores its weight [in, out] (GPT-2's Conv1D).
    """

    shapes: tuple[tuple[int, int], ...]
    dtypes: tuple[str, ...]
    transposed: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    @classmethod
    def parse(cls, name: str, entry: Mapping[str, Any]) -> Self:
        """Read an entry, refusing what this version cannot build.

        Raises:
            SpecdefError: not an entry that `to_json` wrote.
        """
        try:
            shapes = tuple((rows, columns) for rows, columns in entry["shapes"])
            dtypes = tuple(entry["dtypes"])
            sound = len(shapes) == len(dtypes) > 0 and set(dtypes) <= set(DTYPES)
            sound = sound and all(type(size) is int and size > 0 for shape in shapes for size in shape)
            sound = sound and type(entry.get("transposed", False)) is bool
            sound = sound and all(a[0] == b[1] for a, b in itertools.pairwise(shapes))
            found = cls(shapes, dtypes, entry.get("transposed", False))
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise SpecdefError(
                f"`quantization_config.factored[{name!r}]` in config.json must list the shapes and dtypes of a chain "
                "of factors; it does not. Run the rewriting again with this version."
            )
        return found


class FactoredLinear(nn.Module):
    """y = F_n ... F_2 F_1 x + b, every factor a trainable matrix; F_1 is named ``weight``, the others ``factors``.

    Products run in the widest dtype of x and the factors, and the result has x's dtype. Factors keep their dtype when
    the module is cast.

    Args:
        entry: shapes and dtypes of the factors.
        bias_dtype: dtype of b; None for no bias.
        device: where the (uninitialised) tensors are made.

    Example:
        >>> layer = FactoredLinear.of([torch.ones(3, 2), torch.eye(3)], bias=None)
        >>> layer(torch.tensor([[1.0, 2.0]])).tolist()
        [[3.0, 3.0, 3.0]]
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        entry: FactorEntry,
        *,
        bias_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.entry = entry
        empty = [
            nn.Parameter(torch.empty(shape, dtype=getattr(torch, dtype), device=device))
            for shape, dtype in zip(entry.shapes, entry.dtypes, strict=True)
        ]
        self.weight, self.factors = empty[0], nn.ParameterList(empty[1:])
        out_features = entry.shapes[-1][0]
        bias = None if bias_dtype is None else nn.Parameter(torch.empty(out_features, dtype=bias_dtype, device=device))
        self.register_parameter("bias", bias)

    @classmethod
    def of(cls, factors: list[Tensor], *, bias: Tensor | None) -> Self:
        """A layer that holds these factors, first applied first."""
        shapes = tuple((int(f.shape[0]), int(f.shape[1])) for f in factors)
        layer = cls(FactorEntry(shapes, tuple(str(f.dtype).removeprefix("torch.") for f in factors)), device="meta")
        layer.weight = nn.Parameter(factors[0])
        layer.factors = nn.ParameterList(nn.Parameter(factor) for factor in factors[1:])
        layer.bias = None if bias is None else nn.Parameter(bias)
        return layer

    @property
    def chain(self) -> tuple[nn.Parameter, ...]:
        """The factors, first applied first."""
        return (self.weight, *self.factors)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Apply the chain to the last axis of x."""
        dtype = x.dtype
        for factor in self.chain:
            dtype = torch.promote_types(dtype, factor.dtype)
        y = x.to(dtype)
        for factor in self.chain:
            y = functional.linear(y, factor.to(dtype))
        return (y if self.bias is None else y + self.bias.to(dtype)).to(x.dtype)

    def extra_repr(self) -> str:
        """Shapes of the factors."""
        return ", ".join(f"{rows}x{columns}" for rows, columns in self.entry.shapes)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move the factors but never cast them."""
        own = {id(factor) for factor in self.chain}

        def move(tensor: Tensor) -> Tensor:
            if id(tensor) not in own:
                return fn(tensor)  # type: ignore[no-any-return]
            probe = fn(tensor.new_empty(0))
            return fn(tensor) if probe.dtype == tensor.dtype else tensor.to(probe.device)

        super()._apply(move, recurse)
        return self
