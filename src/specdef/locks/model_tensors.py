"""A transformers model in memory as the checkpoint that `save_pretrained` would write of it, and the way back.

transformers may name and lay out tensors otherwise in memory than in files: it renames ViT's, and stacks the experts of
a mixture. Its own way back, which `save_pretrained` takes, is asked for every tensor. What it does to positions is read
off by sending numbered positions through it, so a changed checkpoint tensor finds its place in memory whatever moved.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from specdef.checkpoint.header import ShardHeader, TensorInfo
from specdef.checkpoint.reader import Checkpoint
from specdef.core.dtypes import BITS, STORED_NAMES
from specdef.errors import PlanError
from specdef.linalg.exponent import Stored

SHARD = "memory"
"""The one shard of a model in memory."""
KEPT_CONVERSIONS = 4
"""Parameters whose checkpoint tensors are held at a time: plans read a few side by side."""


@dataclass(frozen=True)
class ModelTensors(Checkpoint):
    """A model's parameters and buffers, read as if they were a checkpoint's tensors.

    Attributes:
        module: the transformers model.
        own: name in memory -> parameter or buffer, tied ones once.
        sources: checkpoint tensor -> the one parameter it is made of; none for a tensor made of several.
    """

    module: nn.Module
    own: Mapping[str, Tensor]
    sources: Mapping[str, str]
    _converted: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def map_tensor(self, shard: str, tensor: TensorInfo) -> Stored:
        """The stored numbers, copied from the device they are on.

        Raises:
            PlanError: the tensor is made of several parameters.
        """
        return _stored(self._conversion(self._source(tensor.name))[tensor.name])

    def in_memory(self, changed: Mapping[str, Stored]) -> dict[str, Tensor]:
        """New values of the parameters that hold changed checkpoint tensors; nothing is written.

        Args:
            changed: checkpoint tensor -> its stored numbers (bfloat16 as uint16), in the tensor's shape.

        Returns:
            Name in memory -> values on the CPU, in the parameter's shape and dtype.

        Raises:
            PlanError: transformers does more than move numbers between a parameter and its checkpoint tensors.
        """
        by_source: dict[str, list[str]] = {}
        for name in changed:
            by_source.setdefault(self._source(name), []).append(name)
        return {source: self._merged(source, names, changed) for source, names in by_source.items()}

    def _source(self, name: str) -> str:
        if name not in self.sources:
            raise PlanError(
                f"`module` must hold tensor {name} in one parameter; {type(self.module).__name__} makes it of several. "
                "Lock its folder instead."
            )
        return self.sources[name]

    def _conversion(self, source: str) -> dict[str, Tensor]:
        """The checkpoint tensors one parameter becomes."""
        if source not in self._converted:
            while len(self._converted) >= KEPT_CONVERSIONS:
                del self._converted[next(iter(self._converted))]
            self._converted[source] = _as_saved(self.module, {source: self.own[source].detach()})
        return self._converted[source]

    def _merged(self, source: str, names: Iterable[str], changed: Mapping[str, Stored]) -> Tensor:
        before = self.own[source].detach().cpu().contiguous()
        after = before.clone()
        count = before.numel()
        numbered = torch.arange(count, dtype=torch.int32 if count < 2**31 else torch.int64).reshape(before.shape)
        positions = _as_saved(self.module, {source: numbered})
        saved = self._conversion(source)
        for name in names:
            at = positions[name].reshape(-1)
            if not torch.equal(_bits(before.reshape(-1)[at]), _bits(saved[name].cpu().reshape(-1))):
                raise PlanError(
                    f"`module` must hold the numbers of tensor {name} as they are saved; {source} of "
                    f"{type(self.module).__name__} holds others. Lock its folder instead."
                )
            after.view(-1)[at] = _tensor(changed[name], before.dtype).reshape(-1)
        return after


def model_tensors(module: nn.Module) -> ModelTensors:
    """The checkpoint a transformers model in memory would be saved as.

    Raises:
        PlanError: a tensor is not in memory, of a format that is never locked, or shares numbers with another one in a
            way that the model does not declare.
    """
    config: dict[str, Any] = dict(cast(Any, module).config.to_dict())
    config["architectures"] = [type(module).__name__]
    own = _own_tensors(module)
    _refuse_shared(own)
    empty = {name: tensor.detach().to("meta") for name, tensor in own.items()}
    saved = _as_saved(module, empty)
    sources: dict[str, str] = {}
    for source, tensor in empty.items():
        alone = saved_parts(module, source, tensor)
        if all(name in saved and saved[name].shape == part.shape for name, part in alone.items()):
            sources |= dict.fromkeys(alone, source)
    infos, start = [], 0
    for name, tensor in saved.items():
        stored = _stored_name(name, tensor)
        end = start + tensor.numel() * BITS[stored] // 8
        infos.append(TensorInfo(name, stored, tuple(tensor.shape), start, end))
        start = end
    shards = {SHARD: ShardHeader(b"", None, tuple(infos))}
    return ModelTensors(Path(type(module).__name__), config, shards, (), module, own, sources)


def write_tensors(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy values into a model's parameters and buffers, all of them or, on an error, none.

    Args:
        module: the model.
        values: name in memory -> values of the parameter's shape and dtype.

    Raises:
        PlanError: the model has no such parameter, or one of another shape or dtype.
    """
    own: dict[str, Tensor] = module.state_dict(keep_vars=True)
    for name, tensor in values.items():
        if name not in own or (own[name].shape, own[name].dtype) != (tensor.shape, tensor.dtype):
            raise PlanError(
                f"`key` must belong to this model; {type(module).__name__} has no {name} of shape "
                f"{list(tensor.shape)} and dtype {tensor.dtype}. Give the key that `lock_module` returned for it."
            )
    with torch.no_grad():
        for name, tensor in values.items():
            own[name].copy_(tensor)


def _as_saved(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a model under the names and in the forms that `save_pretrained` writes."""
    from transformers.core_model_loading import revert_weight_conversion

    saved: dict[str, Tensor] = revert_weight_conversion(module, dict(tensors))
    return saved


def saved_parts(module: nn.Module, source: str, tensor: Tensor) -> dict[str, Tensor]:
    """What one parameter, or a tensor laid out like it, becomes by itself when saved.

    Nothing where transformers needs others beside it.
    """
    try:
        return _as_saved(module, {source: tensor})
    except Exception:  # whatever a conversion raises that misses its other parts
        return {}


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that a checkpoint of the model would hold: declared ties once."""
    ignored = getattr(module, "_keys_to_ignore_on_save", None) or ()
    tensors = {n: t for n, t in module.state_dict(keep_vars=True).items() if n not in ignored}
    declared = _tied_patterns(module)
    tied = {name for name in tensors if any(re.search(pattern, name) for pattern in declared)}
    kept = {_place(tensor) for name, tensor in tensors.items() if name not in tied}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in tied and tensor.numel() and _place(tensor) in kept:
            continue
        found[name] = tensor
        kept.add(_place(tensor))
    return found


def _tied_patterns(module: nn.Module) -> list[str]:
    """Patterns of the names that the model and the models in it declare as tied to others."""
    return [
        (f"{re.escape(prefix)}." if prefix else "") + key
        for prefix, part in module.named_modules()
        for key in getattr(part, "_tied_weights_keys", None) or ()
    ]


def _place(tensor: Tensor) -> tuple[int, int]:
    """Device and address of a tensor's first number."""
    return hash(tensor.device), tensor.data_ptr()


def _refuse_shared(own: Mapping[str, Tensor]) -> None:
    """A scaled parameter must be read under its own name only."""
    spans = []
    for name, tensor in own.items():
        if tensor.is_meta:
            raise PlanError(f"`module` must have its weights in memory; {name} is on device meta. Load it whole.")
        if tensor.numel():
            last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            device, start = _place(tensor)
            spans.append((device, start, start + (last + 1) * tensor.element_size(), name))
    for (device, _, end, name), (other_device, start, _, other) in itertools.pairwise(sorted(spans)):
        if device == other_device and start < end:
            raise PlanError(
                f"`module` must declare its shared weights in `_tied_weights_keys`; {name} and {other} share theirs "
                "without it, so scaling one would change the other. Give each its own."
            )


def _stored_name(name: str, tensor: Tensor) -> str:
    stored = STORED_NAMES.get(str(tensor.dtype).removeprefix("torch."))
    if stored is None:
        raise PlanError(
            f"`module` must hold plain numbers; {name} is of dtype {tensor.dtype}. Lock the model before quantising it."
        )
    return stored


def _stored(tensor: Tensor) -> Stored:
    values = tensor.detach().cpu().contiguous()
    if values.dtype == torch.bfloat16:
        return cast(Stored, values.view(torch.int16).numpy().view(np.uint16))
    return values.numpy()


def _tensor(values: Stored, dtype: torch.dtype) -> Tensor:
    if dtype == torch.bfloat16:
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)
