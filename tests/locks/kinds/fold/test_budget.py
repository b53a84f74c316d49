"""A lock within a runtime budget: what is left out or lowered, and that whole blocks keep their quantised numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pico
import pytest
import torch
from safetensors.torch import load_file

from specdef import lock, unlock, verify
from specdef.errors import PlanError
from specdef.locks.lock import LockReport

WIDE = {"hidden_size": 128, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
BLOCK, LEVELS = 32, 127


def _quantised(weight: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Levels and scales as q8_0 stores them: one float16 scale for 32 neighbours of a row."""
    blocks = weight.float().numpy().reshape(len(weight), -1, BLOCK)
    scale = np.abs(blocks).max(axis=2, keepdims=True) / LEVELS
    return np.round(blocks / np.where(scale == 0, 1, scale)), scale.astype(np.float16)


def _wide(tmp_path: Path) -> Path:
    return pico.build("llama", tmp_path / "model", **WIDE)


def _lock(model: Path, out: Path, **options: object) -> LockReport:
    return lock(model, out, preset="exact", **options)  # type: ignore[arg-type, return-value]


def test_blocks_keep_their_levels_and_scale_by_a_power_of_two(tmp_path: Path) -> None:
    """The rule of q8_0: every block of a locked matrix is the original's, its scale times an exact power of two."""
    model = _wide(tmp_path)
    report = _lock(model, tmp_path / "locked", runtimes=["f16-cache", "q8_0"])
    assert report.strength["exponent"] == 4
    assert report.strength["channels_per_pair"] == BLOCK
    more = lock(model, tmp_path / "more", preset="exact", runtimes=["q8_0"], channels=BLOCK + 1, dry_run=True)
    assert more.strength["channels_per_pair"] == 2 * BLOCK  # whole blocks
    before, after = load_file(model / "model.safetensors"), load_file(tmp_path / "locked" / "model.safetensors")
    changed = 0
    for name, weight in before.items():
        if weight.ndim == 2:
            (levels, scale), (locked_levels, locked_scale) = _quantised(weight), _quantised(after[name])
            assert np.array_equal(levels, locked_levels), name
            ratio = locked_scale.astype(np.float64) / scale
            assert set(np.unique(ratio)) <= {2.0**-4, 1.0, 2.0**4, 2.0**-8}, name
            changed += int((ratio != 1).sum())
    assert changed


def test_a_block_whose_scale_would_lose_digits_is_left_alone(tmp_path: Path) -> None:
    """Weights a thousand times smaller: no block's float16 scale has room for another 2^-4."""
    from safetensors.torch import save_file

    model = _wide(tmp_path)
    weights = load_file(model / "model.safetensors")
    small = {name: weight / 1024 if "mlp.down_proj" in name else weight for name, weight in weights.items()}
    save_file(small, model / "model.safetensors", metadata={"format": "pt"})
    report = _lock(model, tmp_path / "locked", runtimes=["q8_0"])
    assert "updown" not in report.strength["pairs"]
    assert {"norm", "vo"} <= report.strength["pairs"].keys()


def test_what_a_runtime_does_not_survive_is_left_out(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    report = _lock(model, tmp_path / "locked", runtimes=["f16-cache"])
    assert report.strength["exponent"] == 20
    assert "vo" not in report.strength["pairs"]
    assert all(
        pair.startswith("vo") and "f16-cache survives at most 2^8 up" in why for pair, why in report.left_out.items()
    )
    assert _lock(model, tmp_path / "weaker", runtimes=["f16-cache"], multiplier="2^8").strength["pairs"]["vo"] == 2


def test_the_exponent_falls_where_no_kind_survives_it(tmp_path: Path) -> None:
    report = _lock(pico.build("llama", tmp_path / "model"), tmp_path / "locked", runtimes=["f16"])
    assert report.strength["multiplier"] == "2^4"
    assert not report.left_out


def test_a_budget_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    with pytest.raises(PlanError, match="`runtimes` must leave a pair to scale; int8-dynamic survive none in up"):
        _lock(model, tmp_path / "locked", runtimes=["int8-dynamic"])
    with pytest.raises(PlanError, match="`pairs` vo must be left out with `runtimes` f16-cache at 2\\^20"):
        _lock(model, tmp_path / "locked", runtimes=["f16-cache"], pairs=["norm", "vo"])
    with pytest.raises(PlanError, match="`channels` must be at most 1 a pair for runtimes q8_0, int8; it is 32"):
        _lock(model, tmp_path / "locked", runtimes=["q8_0", "int8"])
    gpt2 = pico.build("gpt2", tmp_path / "gpt2")
    with pytest.raises(PlanError, match="`runtimes` must be formats without blocks for GPT-2"):
        _lock(gpt2, tmp_path / "locked", runtimes=["q8_0"])
    assert not (tmp_path / "locked").exists()


def test_a_lock_says_which_runtimes_it_breaks(tmp_path: Path) -> None:
    model = _wide(tmp_path)
    remarks = " ".join(_lock(model, tmp_path / "plain").remarks)
    assert "runs as the original in f32, bf16. Damaged in: f16-cache (vo), f16 (" in remarks
    planned = _lock(model, tmp_path / "planned", runtimes=["f16-cache", "q8_0"])
    claims = json.loads((tmp_path / "planned" / "specdef_lock.json").read_text())["exactness"]["runtimes"]
    assert {"f16-cache", "q8_0"} <= set(claims["survives"])
    assert claims["planned_for"] == ["f16-cache", "q8_0"]
    assert "int8" in claims["breaks"]
    assert "Planned for: f16-cache, q8_0." in (tmp_path / "planned" / "SPECDEF_LOCK.md").read_text()
    assert verify(tmp_path / "planned", original=model).passed
    assert planned.key is not None
    unlock(tmp_path / "planned", tmp_path / "back", planned.key)
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
