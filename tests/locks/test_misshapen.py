"""Tensors of an inject lock that are not what config.json says: `verify` says so before it multiplies them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specdef import lock, verify
from specdef.errors import CheckpointError

PAPER: dict[str, Any] = {"preset": "paper", "rank": 4}


def _edit_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8 : 8 + length])
    change(entries)
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({}, "compensation"),
        ({}, "weight"),
        ({"form": "low_rank"}, "compensation_basis"),
        ({"form": "low_rank"}, "compensation_scale"),
        ({"basis": "axis"}, "compensation_index"),
        ({"basis": "axis"}, "compensation_factor"),
    ],
)
@pytest.mark.parametrize("change", ["flat", "turned", "dtype", "F4"])
def test_a_tensor_of_another_form_is_one_sentence(
    options: dict[str, Any], part: str, change: str, llama: Path, tmp_path: Path
) -> None:
    lock(llama, tmp_path / "locked", **PAPER, **options)
    path = tmp_path / "locked" / "model.safetensors"
    assert verify(tmp_path / "locked").passed
    changed = []

    def disguise(entries: dict[str, Any]) -> None:
        added = next(name.rpartition(".")[0] for name in entries if ".compensation" in name)
        entry = entries[f"{added}.{part}"]
        size, shape = entry["data_offsets"][1] - entry["data_offsets"][0], entry["shape"]
        match change:
            case "flat":
                numbers = 1
                for length in shape:
                    numbers *= length
                entry["shape"] = [numbers, 1]
            case "turned":
                entry["shape"] = [1, *shape[::-1]]
            case "dtype":
                entry.update(dtype="U8", shape=[size])
            case _:
                entry.update(dtype="F4", shape=[2 * size])
        changed.append(f"{added}.{part}")

    _edit_header(path, disguise)
    with pytest.raises(CheckpointError) as caught:
        verify(tmp_path / "locked")
    assert changed[0].rpartition(".")[0] in str(caught.value)
    assert "\n" not in str(caught.value)
