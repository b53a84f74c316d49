"""Random weights of shapes alone: what they are, where they would lie, and that names tell them apart."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from specdef.checkpoint import random_weights
from specdef.checkpoint.random_weights import random_checkpoint
from specdef.checkpoint.reader import Checkpoint

SHAPES = {"a.weight": (4, 3), "b.weight": (4, 3), "a.bias": (5,), "scale": ()}
CONFIG = {"model_type": "llama"}


def stored(found: Checkpoint, name: str) -> np.ndarray:
    (tensor,) = (tensor for tensor in found.shards["random"].tensors if tensor.name == name)
    return found.map_tensor("random", tensor)


def test_they_lie_back_to_back_in_bfloat16(tmp_path: Path) -> None:
    found = random_checkpoint(tmp_path, CONFIG, SHAPES)
    assert (found.folder, found.config, found.others) == (tmp_path, CONFIG, ())
    (header,) = found.shards.values()
    assert (header.raw, header.metadata) == (b"", None)
    assert [(t.name, t.dtype, t.shape, t.start, t.end) for t in header.tensors] == [
        ("a.weight", "BF16", (4, 3), 0, 24),
        ("b.weight", "BF16", (4, 3), 24, 48),
        ("a.bias", "BF16", (5,), 48, 58),
        ("scale", "BF16", (), 58, 60),
    ]
    assert found.shapes == SHAPES


def test_they_are_normal_numbers_of_the_spread_cut_to_bfloat16(tmp_path: Path) -> None:
    found = random_checkpoint(tmp_path, CONFIG, {"w": (300, 1000)})
    values = stored(found, "w")
    assert (values.dtype, values.shape) == (np.uint16, (300, 1000))
    drawn = torch.from_numpy(0.02 * np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32))
    whole = drawn.view(torch.int32).numpy() & -(1 << 16)  # bfloat16 is the upper half of a float32
    begin = -zlib.crc32(b"w") % (1 << 20)
    assert np.array_equal((values.astype(np.uint32) << 16).ravel(), np.roll(whole, -begin)[:300_000].view(np.uint32))
    floats = torch.from_numpy(values.astype(np.int16)).view(torch.bfloat16).double()
    assert abs(float(floats.mean())) < 1e-4
    assert 0.0198 < float(floats.std()) < 0.0201


def test_a_name_gives_the_same_numbers_again_and_another_name_others(tmp_path: Path) -> None:
    found, again = (random_checkpoint(tmp_path, CONFIG, SHAPES) for _ in range(2))
    assert np.array_equal(stored(found, "a.weight"), stored(again, "a.weight"))
    assert not np.array_equal(stored(found, "a.weight"), stored(found, "b.weight"))
    assert stored(found, "scale").shape == ()


def test_a_tensor_larger_than_the_pool_repeats_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = np.arange(6, dtype=np.uint16)
    monkeypatch.setattr(random_weights, "_pool", lambda: pool)
    values = stored(random_checkpoint(tmp_path, CONFIG, {"w": (4, 5)}), "w").ravel()
    assert np.array_equal(values[:6], np.roll(pool, zlib.crc32(b"w")))
    assert np.array_equal(values[6:], values[:-6])
