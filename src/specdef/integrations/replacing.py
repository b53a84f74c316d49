"""Modules of a model that a library is loading, replaced by empty layers of ours before their tensors load."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from specdef.attacks.factored_linear import FACTORED_VERSION, FactoredLinear, FactorEntry
from specdef.errors import SpecdefError
from specdef.locks.deformed_conv import DeformedConv2d
from specdef.locks.deformed_linear import DeformedLinear, linear_weight
from specdef.locks.entry import FORMAT_VERSION, LayerEntry
from specdef.models.empty import path_of


def checked_lists(version: Any, modules: Any, factored: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a ``quantization_config`` lists: the locked modules, and those that are chains of factors.

    Raises:
        SpecdefError: it is of another version, or one of them is no object.
    """
    wanted = FACTORED_VERSION if factored else FORMAT_VERSION
    if version != wanted:
        raise SpecdefError(f"`quantization_config.version` must be {wanted}; got {version!r}. Upgrade specdef.")
    for key, entries in (("modules", modules), ("factored", factored)):
        if not isinstance(entries or {}, dict):
            raise SpecdefError(f"`quantization_config.{key}` in config.json must be an object of layers.")
    return dict(modules or {}), dict(factored or {})


def replace_by_empty(model: Any, name: str, entry: LayerEntry) -> None:
    """Put an empty locked layer in a module's place."""
    path = _path_of(model, name)
    module = model.get_submodule(path)
    if isinstance(module, nn.Conv2d):
        conv = DeformedConv2d(module, entry, device=module.weight.device)
        model.set_submodule(path, conv.train(model.training))
        return
    found, weight, bias_dtype = _linear_of(model, name, entry.transposed)
    empty = DeformedLinear(weight.shape[1], weight.shape[0], entry, bias_dtype=bias_dtype, device=weight.device)
    model.set_submodule(found, empty.train(model.training))


def replace_by_factors(model: Any, name: str, entry: FactorEntry) -> None:
    """Put an empty chain of factors in a module's place."""
    found, weight, bias_dtype = _linear_of(model, name, entry.transposed)
    ends = (entry.shapes[-1][0], entry.shapes[0][1])
    if tuple(weight.shape) != ends:
        raise SpecdefError(
            f"`quantization_config.factored[{name!r}]` in config.json must be a chain of shape {list(weight.shape)}, "
            f"the layer's; got {list(ends)}. Run the rewriting again."
        )
    empty = FactoredLinear(entry, bias_dtype=bias_dtype, device=weight.device)
    model.set_submodule(found, empty.train(model.training))


def _linear_of(model: Any, name: str, transposed: bool) -> tuple[str, Tensor, torch.dtype | None]:
    """(path, weight as [out, in], dtype of the bias) of a linear layer that config.json names."""
    found = _path_of(model, name)
    module = model.get_submodule(found)
    weight, is_transposed = linear_weight(found, module)
    if is_transposed != transposed:
        raise SpecdefError(
            f"`quantization_config.modules[{name!r}].transposed` in config.json must be {is_transposed} for a "
            f"{type(module).__name__}; got {transposed}. Lock the model again with this version."
        )
    bias = module.bias
    return found, weight, None if bias is None else bias.dtype


def _path_of(model: Any, name: str) -> str:
    """The path of a module that config.json names, with or without the model's prefix."""
    found = path_of(model, name, dict(model.named_modules()))
    if found is None:
        raise SpecdefError(
            f"`quantization_config` in config.json must name modules of {type(model).__name__}; "
            f"got {name}, which it lacks. Load the class the folder was saved from."
        )
    return found
