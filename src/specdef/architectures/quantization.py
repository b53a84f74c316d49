"""Recognise quantised checkpoints, so that they are refused by the name of their format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specdef.architectures.spec import Architecture
from specdef.errors import ArchitectureError

SUFFIX_FORMATS = {
    ".qweight": "GPTQ or AWQ",
    ".qzeros": "GPTQ or AWQ",
    ".scales": "GPTQ or AWQ",
    ".g_idx": "GPTQ or AWQ",
    "_blocks": "MXFP4",
    "_scales": "MXFP4",
    ".weight_packed": "compressed-tensors",
    ".weight_shape": "compressed-tensors",
    ".weight_scale_inv": "fine-grained FP8",
    ".weight_scale": "FP8 or INT8 (compressed-tensors)",
    ".input_scale": "FP8 or INT8 (compressed-tensors)",
    ".SCB": "bitsandbytes 8-bit",
    ".absmax": "bitsandbytes 4-bit",
    ".quant_map": "bitsandbytes 4-bit",
}
"""What the tensors of each format end in."""


def format_of(tensor: str) -> str | None:
    """The quantisation format a tensor's name belongs to, or None.

    Example:
        >>> format_of("model.layers.0.mlp.up_proj.qweight"), format_of("model.layers.0.mlp.up_proj.weight")
        ('GPTQ or AWQ', None)
    """
    return next((name for suffix, name in SUFFIX_FORMATS.items() if tensor.endswith(suffix)), None)


def declared_method(declared: object) -> str | None:
    """The method that a ``quantization_config`` names; None where it names none.

    Layers of specdef are declared under ``needs``, not under ``quant_method``: transformers passes over a method that
    it does not know with a warning, and refuses an entry without one. So a locked folder cannot be loaded by accident
    without ``import specdef``. Folders of earlier versions say ``quant_method``.

    Example:
        >>> declared_method({"quant_method": "mxfp4"}), declared_method({"needs": "specdef"}), declared_method({})
        ('mxfp4', 'specdef', None)
    """
    if not isinstance(declared, Mapping):
        return None
    method = declared.get("quant_method", declared.get("needs"))
    return method if isinstance(method, str) else None


def refuse_quantized(config: Mapping[str, Any], family: Architecture) -> None:
    """Refuse a ``config.json`` that declares quantised weights.

    Raises:
        ArchitectureError: naming the method; an inject-locked model is told apart.
    """
    declared = config.get("quantization_config") or config.get("compression_config")
    if not declared:
        return
    method = declared_method(declared) or "unnamed"
    if method == "specdef":
        raise ArchitectureError(
            "`quantization_config` in config.json must be absent; this model is already locked by specdef (inject). "
            "Unlock it first (`specdef unlock`), or start from the original."
        )
    if method not in family.known_quantization:
        raise ArchitectureError(
            f"`quantization_config` in config.json must be absent; got quant_method {method!r}: power-of-two factors "
            "are exact in floating point only. Lock the unquantised checkpoint."
        )
