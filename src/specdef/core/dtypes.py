"""The one table of number formats: what safetensors calls them, what torch and numpy call them, their size."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dtype:
    """One number format.

    Attributes:
        stored: safetensors' name.
        bits: size of one number.
        torch: torch's name; None where this project never computes in it.
        short: the name users type; None where it cannot be chosen.
        lockable: whether weights stored so can be locked.
        numpy: the numpy dtype a float's bytes are viewed as (bfloat16: its bit pattern); None for what is no float or
            is never scaled.
    """

    stored: str
    bits: int
    torch: str | None = None
    short: str | None = None
    lockable: bool = False
    numpy: str | None = None


TABLE = (
    Dtype("F64", 64, "float64", "fp64", numpy="float64"),
    Dtype("F32", 32, "float32", "fp32", lockable=True, numpy="float32"),
    Dtype("BF16", 16, "bfloat16", "bf16", lockable=True, numpy="uint16"),
    Dtype("F16", 16, "float16", "fp16", lockable=True, numpy="float16"),
    Dtype("I64", 64, "int64"),
    Dtype("I32", 32, "int32"),
    Dtype("I16", 16, "int16"),
    Dtype("I8", 8, "int8"),
    Dtype("U8", 8, "uint8"),
    Dtype("BOOL", 8, "bool"),
    Dtype("U64", 64),
    Dtype("U32", 32),
    Dtype("U16", 16),
    Dtype("C64", 64),
    Dtype("F8_E4M3", 8),
    Dtype("F8_E5M2", 8),
    Dtype("F8_E8M0", 8),
    Dtype("F8_E4M3FNUZ", 8),
    Dtype("F8_E5M2FNUZ", 8),
    Dtype("F6_E2M3", 6),
    Dtype("F6_E3M2", 6),
    Dtype("F4", 4),
)
BITS = {dtype.stored: dtype.bits for dtype in TABLE}
"""safetensors' name -> bits a number."""
LOCKABLE = tuple(dtype.stored for dtype in TABLE if dtype.lockable)
TORCH_NAMES = {dtype.stored: dtype.torch for dtype in TABLE if dtype.torch is not None}
"""safetensors' name -> torch's."""
NUMPY_NAMES = {dtype.stored: dtype.numpy for dtype in TABLE if dtype.numpy is not None}
"""safetensors' name -> the numpy dtype its bytes are viewed as."""
STORED_NAMES = {torch: stored for stored, torch in TORCH_NAMES.items()}
"""torch's name -> safetensors'."""
SHORT_NAMES = {dtype.short: dtype.torch for dtype in TABLE if dtype.short is not None and dtype.torch is not None}
"""The name users type -> torch's."""
