"""Models in memory that say which of their layers are locked, so that the folders they are saved in can be loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import nn

from specdef.architectures.quantization import declared_method
from specdef.checkpoint.layout import DECLARED
from specdef.locks.entry import QUANT_METHOD, LayerEntry, quantization_config


def owners(module: nn.Module) -> Iterator[tuple[Any, str]]:
    """The models of a module that write configurations of their own, and what stands before their layers' names.

    A model of transformers or diffusers is one; a pipeline holds several.
    """
    if _writes_config(module):
        yield module, ""
        return
    for name, child in module.named_children():
        if _writes_config(child):
            yield child, f"{name}."


def attach(model: Any, layers: Mapping[str, LayerEntry]) -> None:
    """Add layers to the entry that `save_pretrained` writes."""
    entry, before = quantization_config(layers), _declared(model)
    _declare(model, {**entry, **before, "modules": {**before.get("modules", {}), **entry["modules"]}})


def detach(model: Any, layers: Collection[str]) -> None:
    """Take layers out of the entry; the entry goes with the last of them."""
    before = _declared(model)
    left = {name: entry for name, entry in before.get("modules", {}).items() if name not in layers}
    if left or before.get("factored"):
        _declare(model, {**before, "modules": left})
        return
    if _of_diffusers(model):
        from specdef.models.pipeline import declare_nothing

        declare_nothing(model)
        return
    for owner, attribute in ((model, "hf_quantizer"), (model, "quantization_method"), (model.config, DECLARED)):
        if attribute in vars(owner):
            delattr(owner, attribute)


def _declared(model: Any) -> dict[str, Any]:
    """The entry that a model has by now; empty where it has none of ours."""
    found = getattr(getattr(model, "hf_quantizer", None), "quantization_config", None)
    entry = found.to_dict() if found is not None else {}
    return entry if declared_method(entry) == QUANT_METHOD else {}


def _declare(model: Any, entry: dict[str, Any]) -> None:
    if _of_diffusers(model):
        from specdef.models.pipeline import declare_layers

        declare_layers(model, entry)
        return
    from transformers.quantizers.auto import AutoHfQuantizer

    model.hf_quantizer = AutoHfQuantizer.from_config({**entry, "quant_method": QUANT_METHOD}, pre_quantized=True)
    model.quantization_method = QUANT_METHOD
    model.config.quantization_config = model.hf_quantizer.quantization_config


def _writes_config(module: Any) -> bool:
    return hasattr(module, "save_pretrained") and hasattr(module, "config")


def _of_diffusers(model: Any) -> bool:
    return hasattr(model, "register_to_config")
