"""The powers of two between two checkpoints, against an oracle that looks at one number at a time."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from specdef.architectures import channel_exponents as measured
from specdef.architectures.channel_exponents import UNKNOWN, WIDEST, _RatioReader
from specdef.architectures.channels import squared_norms
from specdef.architectures.resolve import ResolvedSlot
from specdef.checkpoint import blocks
from specdef.checkpoint.reader import Checkpoint, open_checkpoint

Numbers = np.ndarray[Any, np.dtype[np.float64]]


def checkpoint(folder: Path, weights: torch.Tensor) -> Checkpoint:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"w": weights.contiguous()}, folder / "model.safetensors", metadata={"format": "pt"})
    return open_checkpoint(folder)


def weights(kind: str, axis: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Before, after, and the powers its rows or columns were scaled by."""
    generator = torch.Generator().manual_seed(7)
    before = torch.randn((24, 160) if axis == 0 else (160, 24), generator=generator).to(dtype)
    powers = [(0, 20, -20, 3, -7, 60)[position % 6] for position in range(24)]
    factors = torch.tensor([2.0**power for power in powers], dtype=torch.float64)
    shape = (-1, 1) if axis == 0 else (1, -1)
    after = (before.double() * factors.reshape(shape)).to(dtype)
    lines = (before, after) if axis == 0 else (before.T, after.T)
    if kind == "zeros":
        lines[0][1], lines[1][1] = 0, 0
        lines[0][2, :100], lines[1][2, :100] = 0, 0  # more than a sample of them
    if kind == "edited":  # most of a channel's first numbers say one power, most of all another
        lines[1][3, :70] *= 2
        lines[1][4] *= 1.5
        lines[1][5, 80:] *= 2  # half and half
    return before, after, powers


def oracle(before: torch.Tensor, after: torch.Tensor, axis: int) -> list[int | None]:
    found: list[int | None] = []
    lines = (v.double().numpy() if axis == 0 else v.double().numpy().T for v in (before, after))
    for old, new in zip(*lines, strict=True):
        alive = [(x, y) for x, y in zip(old, new, strict=True) if x]
        powers = Counter(math.frexp(y)[1] - math.frexp(x)[1] for x, y in alive if math.frexp(x)[0] == math.frexp(y)[0])
        best, count = max(powers.items(), key=lambda item: item[1], default=(0, 0))
        found.append(None if not alive else best if 2 * count > len(alive) and abs(best) <= WIDEST else int(UNKNOWN))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", ["plain", "zeros", "edited"])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_as_one_number_after_the_other_says(
    kind: str, axis: int, dtype: torch.dtype, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after, powers = weights(kind, axis, dtype)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", rows * before.shape[1] * before.element_size())
    reader = _RatioReader(checkpoint(tmp_path / "a", before), checkpoint(tmp_path / "b", after))
    slot = ResolvedSlot("w", axis, lambda channel: [channel])
    found = reader.exponents(slot, {})
    assert found == oracle(before, after, axis)
    if kind == "plain":
        assert found == powers
    if kind == "edited":
        assert found[3:6] == [3, UNKNOWN, UNKNOWN]
    crossing = np.array([(5, -5)[line % 2] for line in range(before.shape[1 - axis])])
    shape = (1, -1) if axis == 0 else (-1, 1)
    crossed = (after.double() * torch.from_numpy(2.0**crossing).reshape(shape)).to(dtype)
    reader = _RatioReader(checkpoint(tmp_path / "c", before), checkpoint(tmp_path / "d", crossed))
    assert reader.exponents(slot, {1 - axis: crossing}) == found
    assert reader.exponents(slot, {}) != found


def test_every_number_is_counted_only_where_a_few_do_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after, _ = weights("edited", 0, torch.float32)
    reader = _RatioReader(checkpoint(tmp_path / "a", before), checkpoint(tmp_path / "b", after))
    seen: list[int] = []
    count = measured._count

    def counted(counts: Any, at: Any, powers: Any) -> None:
        seen.append(powers.size)
        count(counts, at, powers)

    monkeypatch.setattr(measured, "_count", counted)
    reader.exponents(ResolvedSlot("w", 0, lambda channel: [channel]), {})
    assert seen == [24 * measured.SAMPLE, 3 * 160]


@pytest.mark.parametrize("shape", [(5, 33), (7,), (3, 4, 2, 2), (0, 4), (4, 0)])
@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_sums_of_squares_along_every_axis(
    shape: tuple[int, ...], offset: float, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    monkeypatch.setattr(blocks, "BLOCK_BYTES", rows * 2 * math.prod(shape[1:]))
    held = checkpoint(tmp_path / "a", values)
    ((shard, tensor),) = held.locate().values()
    found = squared_norms(held, shard, tensor, offset)
    exact = (values.double() + offset).square()
    for axis, sums in enumerate(found):
        others = [other for other in range(len(shape)) if other != axis]
        wanted = exact.sum(others) if others else exact
        assert np.allclose(sums, wanted.numpy(), rtol=1e-12, atol=0)
