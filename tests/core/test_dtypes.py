"""The one table of number formats agrees with the libraries it speaks of."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import _TYPES, save

import specdef
from specdef.checkpoint.header import num_bytes
from specdef.core.dtypes import BITS, LOCKABLE, SHORT_NAMES, STORED_NAMES, TABLE, TORCH_NAMES
from specdef.linalg.exponent import NUMPY_DTYPES


@pytest.mark.parametrize("stored", [dtype.stored for dtype in TABLE if dtype.torch])
def test_torch_and_safetensors_say_the_same(stored: str) -> None:
    dtype = getattr(torch, TORCH_NAMES[stored])
    assert _TYPES[stored] == dtype
    data = save({"x": torch.zeros(6, dtype=dtype)})
    assert f'"dtype":"{stored}"'.encode() in data
    assert num_bytes(stored, (6,)) == 6 * dtype.itemsize
    assert STORED_NAMES[TORCH_NAMES[stored]] == stored


def test_every_format_safetensors_loads_is_in_the_table() -> None:
    assert set(_TYPES) <= set(BITS)
    assert {
        name: dtype.itemsize * 8 for name, dtype in _TYPES.items() if not name.startswith("F4")
    }.items() <= BITS.items()


def test_numbers_that_can_be_scaled() -> None:
    assert set(LOCKABLE) == {"F32", "BF16", "F16"}
    assert set(NUMPY_DTYPES) >= set(LOCKABLE)
    for stored, dtype in NUMPY_DTYPES.items():
        assert np.dtype(dtype).itemsize * 8 == BITS[stored]


def test_short_names_are_those_users_type() -> None:
    assert SHORT_NAMES == {"fp64": "float64", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def test_no_other_file_keeps_a_table_of_sizes() -> None:
    homes = [
        path.name
        for path in Path(specdef.__file__).parent.rglob("*.py")
        if re.search(r'"F8_E4M3|"F6_E2M3', path.read_text())
    ]
    assert homes == ["dtypes.py"]
