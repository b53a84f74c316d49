"""The hook that lets transformers load locked folders, and write models locked in memory."""

from __future__ import annotations

from typing import Any

from specdef.architectures.quantization import declared_method
from specdef.attacks.factored_linear import FactorEntry
from specdef.integrations.replacing import checked_lists, replace_by_empty, replace_by_factors
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
            modules, factored = checked_lists(version, modules, factored)
            self.quant_method = QUANT_METHOD
            self.version = version
            self.modules = modules
            if factored:
                self.factored = factored

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
                replace_by_empty(model, name, LayerEntry.parse(name, entry))
            for name, entry in getattr(self.quantization_config, "factored", {}).items():
                replace_by_factors(model, name, FactorEntry.parse(name, entry))

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
