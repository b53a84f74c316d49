"""A model beside the base weights it was made of, tensor by tensor: what is a change of variables, and what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from specdef.architectures.quantization import declared_method
from specdef.attacks.base_weights import check_base
from specdef.attacks.rewrites.channel_factors import LEAST, Factors, Floats, channel_factors, powers_of_two
from specdef.attacks.rewrites.compensated import compensated_modules, stored_layer
from specdef.attacks.rewrites.differences import Difference, layer_of, numerical_rank, without_leading
from specdef.attacks.rewrites.lazy_tensors import tensor_bytes
from specdef.checkpoint.reader import Checkpoint
from specdef.core.dtypes import TORCH_NAMES
from specdef.errors import ArchitectureError, SpecdefError
from specdef.linalg.compensation import effective_weight
from specdef.linalg.exponent import NUMPY_DTYPES
from specdef.locks.base import QUANT_METHOD, without_added
from specdef.locks.entry import LayerEntry
from specdef.locks.recognise import resolve_locked
from specdef.locks.replaced import read_tensor

ALL: Literal["all"] = "all"
"""The rank that leaves nothing of any difference: the base weights, taken back."""
ROUNDINGS = 4.0
"""A tensor is its base's but for rounding where no entry is further off than this many roundings of what is stored."""


@dataclass(frozen=True)
class Compared:
    """What a tensor is beside its base's.

    Attributes:
        factors: of each matrix of a stack; empty for a vector.
        taken: of a vector, the entries that are the base's but for their factor.
        channels: how many rows, columns and entries of vectors have a factor.
        merged: whether a compensation was multiplied in.
        left: what remains; None where a change of variables is all there is.
    """

    factors: Sequence[Factors] = ()
    taken: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    channels: int = 0
    merged: bool = False
    left: Difference | None = None


@dataclass(frozen=True)
class Pair:
    """A model and its base, tensor by tensor.

    Attributes:
        modules: the model's compensated layers.
        names: the tensors that are compared.
        offsets: what the runtime adds to a vector before use, where it does.
        errors: relative difference of each tensor that counts as its base's from the model's own.
    """

    checkpoint: Checkpoint
    base: Checkpoint
    modules: Mapping[str, LayerEntry]
    names: tuple[str, ...]
    offsets: Mapping[str, float]
    errors: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, checkpoint: Checkpoint, base: Checkpoint) -> Pair:
        """Both checked.

        Raises:
            SpecdefError: the base is of another model, or the folder lists compensated layers wrongly.
        """
        ours = declared_method(checkpoint.config.get("quantization_config")) == QUANT_METHOD
        modules = compensated_modules(checkpoint) if ours else {}
        where = checkpoint.locate()
        names = tuple(name for name in without_added(where) if where[name][1].dtype in NUMPY_DTYPES)
        check_base(checkpoint, base, names)
        return cls(checkpoint, base, modules, names, _offsets(checkpoint))

    def compared(self) -> dict[str, Compared]:
        """The tensors that differ from the base's: matrices first, since their factors tell those of vectors."""
        shapes = self.checkpoint.shapes
        found: dict[str, Compared] = {}
        known: dict[int | None, list[Floats]] = {}
        for name in sorted(self.names, key=lambda name: len(shapes[name]) < 2):
            published, base, slack = self._read(name)
            merged = self._module(name) is not None
            if not merged and np.array_equal(published, base):
                continue
            if published.ndim < 2:
                found[name] = self._vector(name, published, base, known.get(layer_of(name), []))
                continue
            one = self._stack(name, published, base, slack, merged)
            known.setdefault(layer_of(name), []).extend(
                side for factors in one.factors for side in (factors.rows, factors.columns) if side.any()
            )
            found[name] = one
        return found

    def anchored(self, name: str, one: Compared, rank: int | Literal["all"]) -> bytes:
        """A tensor's new content."""
        published, base, _ = self._read(name)
        if one.left is None or rank == ALL or (published.ndim < 2 and rank > 0):
            return self._stored(name, base)
        if published.ndim < 2:
            return self._stored(name, np.where(one.taken, base, published))
        made = []
        for factors, matrix, other in zip(one.factors, _stack(published), _stack(base), strict=True):
            undone = factors.undo(matrix)
            made.append(other + without_leading(undone - other, rank) if rank else undone)
        return self._stored(name, np.stack(made).reshape(published.shape))

    def _stack(self, name: str, published: Floats, base: Floats, slack: Floats | None, merged: bool) -> Compared:
        pairs = list(zip(_stack(published), _stack(base), strict=True))
        factors = [channel_factors(*pair) for pair in pairs]
        undone = [one.undo(matrix) for one, (matrix, _) in zip(factors, pairs, strict=True)]
        left = [matrix - other for matrix, (_, other) in zip(undone, pairs, strict=True)]
        allowed = [np.abs(matrix) for matrix in undone] if slack is None else list(_stack(slack))
        unit = ROUNDINGS * self._rounding(name)
        channels = sum(one.count for one in factors)
        if all((np.abs(one) <= unit * most).all() for one, most in zip(left, allowed, strict=True)):
            self.errors.append(float(np.linalg.norm(left) / np.linalg.norm(undone)))
            return Compared(factors, channels=channels, merged=merged)
        rank = max(map(numerical_rank, left))
        difference = Difference(name, rank, float(np.sum(np.square(left))), float(np.sum(np.square(base))))
        return Compared(factors, channels=channels, merged=merged, left=difference)

    def _vector(self, name: str, published: Floats, base: Floats, known: Sequence[Floats]) -> Compared:
        """Entries that are the base's times a power of two, or times what a matrix of the layer was divided by."""
        offset = self.offsets.get(name, 0.0)
        kind = np.dtype("float32" if offset else "float64")  # the runtime adds the offset in float32
        ours, theirs = (np.add(values.astype(kind), offset, dtype=kind) for values in (published, base))
        taken = powers_of_two(ours, theirs)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.abs(np.log2(ours / theirs))
        for side in known:
            if side.shape == logs.shape:
                taken |= (side != 0) & (np.abs(logs - np.abs(side)) <= LEAST)
        left = np.where(taken, 0.0, published - base)
        channels = int(np.count_nonzero(taken))
        if not left.any():
            return Compared(taken=taken, channels=channels)
        difference = Difference(name, 1, float(np.sum(np.square(left))), float(np.sum(np.square(base))))
        return Compared(taken=taken, channels=channels, left=difference)

    def _module(self, name: str) -> str | None:
        module = name.removesuffix(".weight")
        return module if module != name and module in self.modules else None

    def _read(self, name: str) -> tuple[Floats, Floats, Floats | None]:
        """The model's tensor, its compensation multiplied in; the base's; what one rounding of the factors can do."""
        stored = read_tensor(self.checkpoint, *self.checkpoint.locate()[name])
        other = read_tensor(self.base, *self.base.locate()[name])
        if not (bool(stored.isfinite().all()) and bool(other.isfinite().all())):
            raise SpecdefError(f"Weights must be finite; tensor {name} holds NaN or infinity.")
        base = (other if other.dtype.itemsize <= stored.dtype.itemsize else other.to(stored.dtype)).double().numpy()
        if (module := self._module(name)) is None:
            return stored.double().numpy(), base, None
        entry = self.modules[module]
        weight, tensors = stored_layer(self.checkpoint, module, entry)
        sizes = {part: tensor.abs() for part, tensor in tensors.items()}
        pair = effective_weight(weight, tensors, entry.side), effective_weight(weight.abs(), sizes, entry.side)
        merged, slack = ((one.T if entry.transposed else one).reshape(stored.shape).numpy() for one in pair)
        return merged, base, slack

    def _rounding(self, name: str) -> float:
        """Relative size of one rounding of what is stored of a tensor."""
        stored = torch.finfo(getattr(torch, TORCH_NAMES[self.checkpoint.locate()[name][1].dtype])).eps
        entry = self.modules.get(self._module(name) or "")
        return float(stored if entry is None else max(stored, torch.finfo(getattr(torch, entry.dtype)).eps))

    def _stored(self, name: str, values: Floats) -> bytes:
        dtype = getattr(torch, TORCH_NAMES[self.checkpoint.locate()[name][1].dtype])
        return tensor_bytes(torch.from_numpy(np.ascontiguousarray(values)).to(dtype))


def _stack(tensor: Floats) -> Floats:
    """A tensor as a stack of matrices [stack, m, n]: one of three axes holds experts, one of more a convolution."""
    if tensor.ndim == 3:
        return tensor
    return tensor.reshape(1, len(tensor), -1)


def _offsets(checkpoint: Checkpoint) -> dict[str, float]:
    """Tensor -> what the runtime adds to it, where the family is known and does."""
    try:
        pairs = resolve_locked(checkpoint).pairs
    except ArchitectureError:
        return {}
    return {slot.tensor: slot.offset for pair in pairs for slot in pair.slots if slot.offset}
