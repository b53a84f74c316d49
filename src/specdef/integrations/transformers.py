"""The hook that lets transformers load locked folders, and write models locked in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from specdef.architectures.quantization import declared_method
from specdef.attacks.factored_linear import FACTORED_VERSION, FactoredLinear, FactorEntry
from specdef.errors import SpecdefError
from specdef.locks.deformed_conv import DeformedConv2d
from specdef.locks.deformed_linear import DeformedLinear, linear_weight
from specdef.locks.entry import FORMAT_VERSION, QUANT_METHOD, LayerEntry


def register() -> None:
    """Make transformers load folders that need specdef. Calling it again changes nothing."""
    from transformers.quantizers.auto import (
        AUTO_QUANTIZER_MAPPING,
        AutoHfQuantizer,
        register_quantization_config,
        register_quantizer,
    )
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin

    if QUANT_METHOD in AUTO_QUANTIZER_MAPPING:
        return

    @register_quantization_config(QUANT_METHOD)
    class SpecdefConfig(QuantizationConfigMixin):  # type: ignore[misc]
        """The locked modules, as config.json lists them."""

        def __init__(self, version: int = FORMAT_VERSION, modules: Any = None, factored: Any = None, **_: Any) -> None:
            wanted = FACTORED_VERSION if factored else FORMAT_VERSION
            if version != wanted:
                raise SpecdefError(f"`quantization_config.version` must be {wanted}; got {version!r}. Upgrade specdef.")
            for key, entries in (("modules", modules), ("factored", factored)):
                if not isinstance(entries or {}, dict):
                    raise SpecdefError(f"`quantization_config.{key}` in config.json must be an object of layers.")
            self.quant_method = QUANT_METHOD
            self.version = version
            self.modules = dict(modules or {})
            if factored:
                self.factored = dict(factored)

        def to_dict(self) -> dict[str, Any]:
            """What config.json holds: without specdef transformers refuses it, as `declared_method` says."""
            entries = super().to_dict()
            return {"needs": entries.pop("quant_method"), **entries}

    @register_quantizer(QUANT_METHOD)
    class SpecdefQuantizer(HfQuantizer):  # type: ignore[misc]
        """Puts empty `Deformed` layers in place before weights load; their tensors keep their own dtypes."""

        requires_calibration = True  # a model is locked by specdef, never while it is being loaded

        def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
            for name, entry in self.quantization_config.modules.items():
                _replace_by_empty(model, name, LayerEntry.parse(name, entry))
            for name, entry in getattr(self.quantization_config, "factored", {}).items():
                _replace_by_factors(model, name, FactorEntry.parse(name, entry))

        def is_serializable(self) -> bool:
            """save_pretrained may write the model."""
            return True

        @property
        def is_trainable(self) -> bool:
            """Trainer may train adapters on it."""
            return True

        @property
        def is_qat_trainable(self) -> bool:
            """Trainer may train its own weights, W~ and C included."""
            return True

    _name_the_method(AutoHfQuantizer)


def _name_the_method(auto: Any) -> None:
    """Let transformers find our quantizer in an entry that says ``needs`` where it looks for ``quant_method``."""
    own = auto.supports_quant_method

    def supports(entry: Any) -> bool:
        if isinstance(entry, dict) and declared_method(entry) == QUANT_METHOD:
            entry["quant_method"] = QUANT_METHOD
        return bool(own(entry))

    auto.supports_quant_method = staticmethod(supports)


def _replace_by_empty(model: Any, name: str, entry: LayerEntry) -> None:
    path = _path_of(model, name)
    module = model.get_submodule(path)
    if isinstance(module, nn.Conv2d):
        conv = DeformedConv2d(module, entry, device=module.weight.device)
        model.set_submodule(path, conv.train(model.training))
        return
    found, weight, bias_dtype = _linear_of(model, name, entry.transposed)
    empty = DeformedLinear(weight.shape[1], weight.shape[0], entry, bias_dtype=bias_dtype, device=weight.device)
    model.set_submodule(found, empty.train(model.training))


def _replace_by_factors(model: Any, name: str, entry: FactorEntry) -> None:
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
    prefix = model.base_model_prefix + "."
    modules = dict(model.named_modules())
    found = next((n for n in (name, name.removeprefix(prefix), prefix + name) if n in modules), None)
    if found is None:
        raise SpecdefError(
            f"`quantization_config` in config.json must name modules of {type(model).__name__}; "
            f"got {name}, which it lacks. Load the class the folder was saved from."
        )
    return found
