"""The hook that lets diffusers load pipelines whose U-Net has an inject lock, and write them again."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch

from specdef.architectures.quantization import declared_method
from specdef.attacks.factored_linear import FactorEntry
from specdef.integrations.replacing import checked_lists, replace_by_empty, replace_by_factors
from specdef.locks.deformed import Deformed
from specdef.locks.entry import QUANT_METHOD, LayerEntry


class Method(StrEnum):
    """What diffusers asks a quantization method's name of."""

    SPECDEF = QUANT_METHOD


def register() -> None:
    """Make diffusers load components that need specdef. Calling it again changes nothing."""
    from diffusers.quantizers.auto import (
        AUTO_QUANTIZATION_CONFIG_MAPPING,
        AUTO_QUANTIZER_MAPPING,
        DiffusersAutoQuantizer,
    )
    from diffusers.quantizers.base import DiffusersQuantizer
    from diffusers.quantizers.quantization_config import QuantizationConfigMixin

    if QUANT_METHOD in AUTO_QUANTIZER_MAPPING:
        return

    class SpecdefConfig(QuantizationConfigMixin):  # type: ignore[misc]
        """The locked modules, as the component's config.json lists them."""

        def __init__(self, version: int = 1, modules: Any = None, factored: Any = None, **_: Any) -> None:
            self.quant_method = Method.SPECDEF
            self.version = version
            self.modules, self.factored = checked_lists(version, modules, factored)

        def to_dict(self) -> dict[str, Any]:
            """What config.json holds: without specdef diffusers refuses it, as `declared_method` says."""
            found: dict[str, Any] = {"needs": QUANT_METHOD, "version": self.version, "modules": self.modules}
            return {**found, "factored": self.factored} if self.factored else found

        def to_diff_dict(self) -> dict[str, Any]:
            """The same: every name of it says something."""
            return self.to_dict()

    class SpecdefQuantizer(DiffusersQuantizer):  # type: ignore[misc]
        """Puts empty `Deformed` layers in place before weights load; their tensors keep their own dtypes."""

        requires_calibration = True  # a model is locked by specdef, never while it is being loaded
        use_keep_in_fp32_modules = False

        def check_if_quantized_param(
            self, model: Any, param_value: Any, param_name: str, state_dict: Any, **_: Any
        ) -> bool:
            """Whether a tensor is one of a locked layer, but for its bias, which has the model's dtype."""
            path, name = str(param_name).rsplit(".", 1)
            return name != "bias" and isinstance(model.get_submodule(path), Deformed)

        def create_quantized_param(
            self, model: Any, param_value: Any, param_name: str, target_device: Any, state_dict: Any, *_: Any, **__: Any
        ) -> None:
            """Put the tensor in place as it is stored."""
            path, name = str(param_name).rsplit(".", 1)
            module, stored = model.get_submodule(path), state_dict[param_name].to(target_device)
            if name in module._buffers:
                module._buffers[name] = stored
            else:
                setattr(module, name, torch.nn.Parameter(stored))

        def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
            for name, entry in self.quantization_config.modules.items():
                replace_by_empty(model, name, LayerEntry.parse(name, entry))
            for name, entry in self.quantization_config.factored.items():
                replace_by_factors(model, name, FactorEntry.parse(name, entry))

        def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
            model.is_quantized = False  # the layers refuse a cast that would lose the function by themselves
            return model

        @property
        def is_serializable(self) -> bool:
            """save_pretrained may write the model."""
            return True

        @property
        def is_trainable(self) -> bool:
            """Everything of it may be trained."""
            return True

        @property
        def is_compileable(self) -> bool:
            """torch.compile may read it."""
            return True

    AUTO_QUANTIZATION_CONFIG_MAPPING[QUANT_METHOD] = SpecdefConfig
    AUTO_QUANTIZER_MAPPING[QUANT_METHOD] = SpecdefQuantizer
    _name_the_method(DiffusersAutoQuantizer)


def _name_the_method(auto: Any) -> None:
    """Let diffusers find our quantizer in an entry that says ``needs`` where it looks for ``quant_method``."""
    own = auto.from_dict.__func__

    def from_dict(cls: Any, entry: Any) -> Any:
        if isinstance(entry, dict) and declared_method(entry) == QUANT_METHOD:
            entry = {**entry, "quant_method": QUANT_METHOD}
        return own(cls, entry)

    auto.from_dict = classmethod(from_dict)
