"""What a lock writes, frozen: a change of one channel, factor, matrix, name or entry fails here.

Frozen is what a lock decides, not the random weights it decides it for, whose bytes another torch may draw otherwise:
of a fold lock the power of two of every number and the key's scalings; of an inject lock, whose W~ and C come from an
SVD, the matrices, the tensors' names, dtypes and shapes, and the entry in config.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pico
import pytest
import torch
from blake3 import blake3
from safetensors.torch import load_file
from torch import Tensor

from specdef import lock
from specdef.locks.key import read_key

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
FAMILIES = ("llama", "phi3", "gpt2", "gpt_neox", "mixtral", "bert")
OPTIONS: dict[str, dict[str, Any]] = {
    "exact": {"preset": "exact"},
    "exact down": {
        "preset": "exact",
        "channels": 3,
        "direction": "down",
        "multiplier": "2^7",
        "num_layers": 1,
        "seed": 5,
    },
    "paper": {"preset": "paper", "rank": 3},
}


def shifts(before: Tensor, after: Tensor) -> bytes:
    """The power of two of every number, as little-endian int16; nothing else may have changed."""
    (x, powers), (y, new_powers) = (np.frexp(tensor.double().numpy()) for tensor in (before, after))
    assert np.array_equal(x, y)
    return (new_powers - powers).astype("<i2").tobytes()


def described(model: Path, locked: Path, key: Path, *, scaled: bool) -> str:
    """Digest of what the lock decided."""
    before, after = load_file(model / "model.safetensors"), load_file(locked / "model.safetensors")
    secret = read_key(key)
    quantization = json.loads((locked / "config.json").read_text()).get("quantization_config")
    facts = [secret.method, [dict(edit) for edit in secret.edits], sorted(secret.blobs), quantization]
    hasher = blake3(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(after.items()):
        hasher.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        if scaled:
            hasher.update(shifts(before[name], tensor))
    return hasher.hexdigest(length=16)


@pytest.mark.parametrize("how", OPTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_lock_writes_is_frozen(family: str, how: str, tmp_path: Path) -> None:
    dtype = torch.bfloat16 if how == "exact down" else torch.float32
    model = pico.build(family, tmp_path / "model", dtype=dtype)
    lock(model, tmp_path / "locked", **OPTIONS[how])
    found = described(model, tmp_path / "locked", tmp_path / "locked.specdef-key", scaled=how != "paper")
    assert GOLDEN[f"{family}, {how}"] == found
