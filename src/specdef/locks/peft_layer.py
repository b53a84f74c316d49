"""LoRA on a locked layer. PEFT knows no `DeformedLinear`; a configuration learns of it by registering `peft_layers`.

This file imports peft: import it where an adapter is made, never at the top of a file.
"""

from __future__ import annotations

from typing import Any

from peft import LoraConfig
from peft.tuners.lora.layer import Linear
from torch import nn

from specdef.errors import SpecdefError
from specdef.locks.deformed_linear import DeformedLinear

FREE_INITIALISATIONS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that do not read the weight; a locked weight is not the function's."""


class LoraDeformedLinear(Linear):  # type: ignore[misc]
    """A locked layer with adapters beside it: y = C W~ x + b + (alpha / r) B A x, all of the lock frozen.

    Nothing of the lock is read but its output, so that step 0 keeps the function to the bit. Adapters cannot be merged:
    W~ + B A is another function, and C^-1 B A falls below the last digit of W~.
    """

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        assert isinstance(module, DeformedLinear)
        return module.in_features, module.out_features

    def update_layer(self, adapter_name: str, r: int, lora_alpha: int, config: LoraConfig, **kwargs: Any) -> None:
        """Add an adapter.

        Raises:
            SpecdefError: the configuration needs the layer's weight.
        """
        if config.init_lora_weights not in FREE_INITIALISATIONS:
            raise SpecdefError(
                f"`init_lora_weights` must not be taken from the weight of a locked layer; "
                f"got {config.init_lora_weights!r}. Leave it out."
            )
        if config.use_dora:
            raise SpecdefError("`use_dora` must be false for a locked layer: its weight is scaled; got true. Use LoRA.")
        super().update_layer(adapter_name, r, lora_alpha=lora_alpha, config=config, **kwargs)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse.

        Raises:
            SpecdefError: always.
        """
        raise SpecdefError(
            "An adapter must stay beside a locked layer: added to the scaled weight it would be another function. "
            "Save the adapter by itself, or unlock the model first."
        )


def peft_layers() -> dict[type[nn.Module], type[nn.Module]]:
    """What `LoraConfig` must register so that `get_peft_model` and `PeftModel.from_pretrained` adapt locked layers.

    Example:
        >>> from peft import get_peft_model
        >>> from specdef.linalg.deform import deform
        >>> linear = nn.Linear(8, 8)
        >>> model = nn.Sequential(DeformedLinear.from_linear(linear, deform(linear.weight.detach(), 2, 1e4)))
        >>> config = LoraConfig(target_modules=["0"])
        >>> config._register_custom_module(peft_layers())
        >>> type(get_peft_model(model, config).base_model.model[0]).__name__
        'LoraDeformedLinear'
    """
    return {DeformedLinear: LoraDeformedLinear}
