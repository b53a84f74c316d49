"""The fold lock on real checkpoint folders: same function to the bit, and back to the byte."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from pathlib import Path

import numpy as np
import pico
import pytest
import torch
from safetensors.torch import load_file, save_file

from specdef import inspect_model, lock, unlock, verify
from specdef.checkpoint import blocks
from specdef.errors import KeyFileError, PlanError, SpecdefError

EXACT_DTYPES = [torch.float32, torch.bfloat16]


def _hashes(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_blocks_of_a_few_numbers_give_the_same_files(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors are edited block by block; these fit into one, so the blocks are made smaller than any of them."""
    model = pico.build(family, tmp_path / "model")
    lock(model, tmp_path / "locked", preset="exact")
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    report = lock(model, tmp_path / "in-blocks", preset="exact")
    assert report.key is not None
    assert _hashes(tmp_path / "in-blocks") == _hashes(tmp_path / "locked")
    unlock(tmp_path / "in-blocks", tmp_path / "back", report.key)
    assert _hashes(tmp_path / "back") == _hashes(model)


def test_a_squared_relu_is_undone_twice(tmp_path: Path) -> None:
    """Squaring doubles the exponent: dividing the consumers once would leave 2^20 in every output."""
    model = pico.build("gpt_neox-serial", tmp_path / "model")
    report = lock(model, tmp_path / "locked", preset="exact", pairs=["fc"], multiplier="2^20")
    assert report.strength["pairs"] == {"fc": 2}
    assert torch.equal(pico.run("gpt_neox-serial", model), pico.run("gpt_neox-serial", tmp_path / "locked"))
    assert verify(tmp_path / "locked", original=model).passed


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_every_family_locks_reloads_and_unlocks(family: str, tmp_path: Path) -> None:
    model = pico.build(family, tmp_path / "model")
    report = lock(model, tmp_path / "locked", preset="exact", multiplier="2^20")
    assert report.key is not None
    before, after = load_file(model / "model.safetensors"), load_file(tmp_path / "locked" / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(pico.run(family, model), pico.run(family, tmp_path / "locked"))
    result = verify(tmp_path / "locked", original=model)
    assert result.passed, result.checks
    unlock(tmp_path / "locked", tmp_path / "back", report.key)
    assert _hashes(model) == _hashes(tmp_path / "back")


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_a_wrong_pair_is_caught_by_verify(family: str, tmp_path: Path) -> None:
    """Undo one consumer's scaling, as a wrong map would, and refresh nothing else."""
    model = pico.build(family, tmp_path / "model")
    lock(model, tmp_path / "locked", preset="exact")
    before = load_file(model / "model.safetensors")
    after = load_file(tmp_path / "locked" / "model.safetensors")
    broken = next(name for name in before if not torch.equal(before[name], after[name]) and before[name].ndim > 1)
    after[broken] = before[broken]
    save_file(after, tmp_path / "locked" / "model.safetensors", {"format": "pt"})
    checks = {check.name: check.passed for check in verify(tmp_path / "locked", original=model).checks}
    assert not checks["integrity"]
    assert not checks["function"]


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("dtype", EXACT_DTYPES)
def test_both_directions_and_dtypes_keep_every_bit(direction: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model", dtype=dtype)
    lock(model, tmp_path / "locked", preset="exact", multiplier="2^40", channels=3, direction=direction)
    assert torch.equal(pico.run("llama", model), pico.run("llama", tmp_path / "locked"))


def test_the_plan_is_a_function_of_weights_and_seed(llama: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        lock(llama, tmp_path / name, preset="exact", seed=seed)
    a, b, c = (_hashes(tmp_path / name)["model.safetensors"] for name in "abc")
    assert a == b != c


def test_choosing_fewer_pairs_keeps_the_others_channels(llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "all", preset="exact")
    lock(llama, tmp_path / "vo", preset="exact", pairs=["vo"], layers=[1])
    everything = load_file(tmp_path / "all" / "model.safetensors")
    only = load_file(tmp_path / "vo" / "model.safetensors")
    original = load_file(llama / "model.safetensors")
    changed = {name for name in original if not torch.equal(original[name], only[name])}
    assert changed == {"model.layers.1.self_attn.v_proj.weight", "model.layers.1.self_attn.o_proj.weight"}
    rows = (original["model.layers.1.self_attn.v_proj.weight"] != only["model.layers.1.self_attn.v_proj.weight"]).any(1)
    scaled = everything["model.layers.1.self_attn.v_proj.weight"][rows].abs().max()
    assert scaled > 1000 * original["model.layers.1.self_attn.v_proj.weight"].abs().max()


def test_shards_metadata_and_other_files_are_kept(llama: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(llama, tmp_path / "model"))
    shards = pico.shard(model)
    (model / "sub").mkdir()
    (model / "sub" / "LICENSE").write_text("as it is")
    report = lock(model, tmp_path / "locked", preset="exact")
    for shard in shards:
        header = (model / shard).read_bytes()[: 8 + int.from_bytes((model / shard).read_bytes()[:8], "little")]
        assert (tmp_path / "locked" / shard).read_bytes().startswith(header)
    same = {n for n, h in _hashes(model).items() if _hashes(tmp_path / "locked")[n] == h}
    assert same == _hashes(model).keys() - set(shards)
    assert torch.equal(pico.run("llama", model), pico.run("llama", tmp_path / "locked"))
    assert report.key is not None
    unlock(tmp_path / "locked", tmp_path / "back", report.key)
    assert _hashes(tmp_path / "back") == _hashes(model)


def test_the_manifest_names_no_channel_and_the_key_is_private(llama: Path, tmp_path: Path) -> None:
    report = lock(llama, tmp_path / "locked", preset="exact")
    manifest = (tmp_path / "locked" / "specdef_lock.json").read_text()
    assert "indices" not in manifest
    assert report.key is not None
    assert stat.S_IMODE(report.key.stat().st_mode) == 0o600
    assert not report.key.is_relative_to(tmp_path / "locked")


def test_inspect_tells_locked_from_unlocked(llama: Path, tmp_path: Path) -> None:
    assert not inspect_model(llama, spectra=False).verdict.locked
    lock(llama, tmp_path / "locked", preset="exact", multiplier="2^12")
    verdict = inspect_model(tmp_path / "locked", spectra=False).verdict
    assert verdict.locked
    assert verdict.sign is not None
    assert verdict.sign.exponent == 12
    assert verdict.sign.layers == (0, 1)


def test_a_dry_run_writes_nothing(llama: Path, tmp_path: Path) -> None:
    report = lock(llama, tmp_path / "locked", preset="exact", dry_run=True)
    assert report.out is None
    assert report.num_values > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"multiplier": "1e4"}, r"power of two for an exact lock; got 10000. 2\^13 .* and 2\^14 .* fit"),
        ({"multiplier": "2^61"}, r"at most 2\^60, beyond which squared gradients overflow"),
        ({"layers": [2]}, r"`layers` must lie between 0 and 1; got 2"),
        ({"layers": [0, 0]}, "each once"),
        ({"num_layers": 3}, "`num_layers` must lie between 1 and 2; got 3"),
        ({"layers": [0], "num_layers": 1}, "exclude each other"),
        ({"pairs": ["qk"]}, "`pairs` must be drawn from norm, vo, updown, fc, head, conv; got 'qk'"),
        ({"pairs": ["fc"]}, "`pairs` must be drawn from .* for this Llama checkpoint; got fc"),
        ({"channels": 0}, "`channels` must be at least 1"),
        ({"channels": 17}, r"`channels` must be at most 16, the channels of pair vo.0; got 17"),
        ({"direction": "sideways"}, "`direction` must be up or down"),
        ({"preset": "best"}, "`preset` must be one of exact, paper"),
        ({"rank": 3}, "`rank` is no option of lock fold"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], match: str, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=match):
        lock(llama, tmp_path / "out", **{"preset": "exact", **options})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_float16_bounds_the_multiplier_and_says_which_fits(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model", dtype=torch.float16)
    with pytest.raises(PlanError, match=r"at most 2\^5, direction up, for float16 tensors .* got 2\^20 up for tensor"):
        lock(model, tmp_path / "locked", preset="exact")
    with pytest.raises(PlanError, match="would be subnormal"):
        lock(model, tmp_path / "locked", preset="exact", multiplier="2^3", direction="down")
    lock(model, tmp_path / "locked", preset="exact", multiplier="2^3")
    assert torch.equal(pico.run("llama", model), pico.run("llama", tmp_path / "locked"))


def _loaded_in(dtype: str, family: str, folder: Path) -> Path:
    """A float32 checkpoint whose config.json says otherwise, so that transformers casts its weights."""
    config = pico.build(family, folder) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": dtype}))
    return folder


def test_a_factor_is_exact_in_float16_too_where_config_has_float32_weights_loaded_so(tmp_path: Path) -> None:
    """Before, weights were chosen that a factor makes subnormal once they are cast, and the lock claimed every bit."""
    model = _loaded_in("float16", "llama", tmp_path / "model")
    report = lock(model, tmp_path / "locked", preset="exact", multiplier="2^5")
    before, after = load_file(model / "model.safetensors"), load_file(tmp_path / "locked" / "model.safetensors")
    for name, old in before.items():
        changed = old != after[name]
        factor, cast, scaled = (after[name] / old)[changed], old.half()[changed], after[name].half()[changed]
        assert torch.equal(cast.float() * factor, scaled.float()), name
        assert bool((scaled.abs() >= torch.finfo(torch.float16).tiny).all()), name
    assert report.exactness["stored_dtypes"] == ["F32"]
    assert report.exactness["exact_in"] == ["float16", "float32"]
    assert not report.exactness["bit_exact"]


@pytest.mark.parametrize("family", ["gemma2", "nemotron"])
def test_offset_norms_are_exact_in_the_dtype_that_config_has_them_loaded_in(family: str, tmp_path: Path) -> None:
    """2^20 (1 + w) - 1 is a float32 and no bfloat16; before, float32 weights loaded in bfloat16 lost the function."""
    model = _loaded_in("bfloat16", family, tmp_path / "model")
    report = lock(model, tmp_path / "locked", preset="exact", multiplier="2^20")
    assert "norm" not in report.strength["pairs"]
    assert report.exactness["bit_exact"]
    assert torch.equal(pico.run(family, model), pico.run(family, tmp_path / "locked"))
    with pytest.raises(
        PlanError, match=r"scales exactly, also as config.json has them loaded, in bfloat16; it has few"
    ):
        lock(model, tmp_path / "norms", preset="exact", multiplier="2^20", pairs=["norm"])
    report = lock(model, tmp_path / "small", preset="exact", multiplier="2^3", pairs=["norm"])
    assert report.exactness["exact_in"] == ["bfloat16", "float32"]
    assert torch.equal(pico.run(family, model), pico.run(family, tmp_path / "small"))


def test_a_pair_without_an_exact_channel_names_the_largest_multiplier(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model", dtype=torch.float16)
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"].mul_(2.0**-11)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(PlanError, match=r"Pair updown.0 must have 1 channels that 2\^5 \(up\) scales exactly"):
        lock(model, tmp_path / "locked", preset="exact", multiplier="2^5", pairs=["updown"])


def test_a_locked_model_is_not_locked_again(llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", preset="exact")
    with pytest.raises(SpecdefError, match="must be an unlocked model"):
        lock(tmp_path / "locked", tmp_path / "again", preset="exact")


class TestKeys:
    @pytest.fixture
    def locked(self, llama: Path, tmp_path: Path) -> Path:
        lock(llama, tmp_path / "locked", preset="exact")
        return tmp_path / "locked"

    def test_inside_the_locked_folder(self, llama: Path, tmp_path: Path) -> None:
        with pytest.raises(KeyFileError, match="`key` must lie outside the locked folder"):
            lock(llama, tmp_path / "locked", preset="exact", key=tmp_path / "locked" / "key")

    def test_never_overwritten(self, llama: Path, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("precious")
        with pytest.raises(KeyFileError, match="keys are never overwritten"):
            lock(llama, tmp_path / "locked", preset="exact", key=tmp_path / "key")
        assert (tmp_path / "key").read_text() == "precious"

    def test_of_another_model(self, locked: Path, llama: Path, tmp_path: Path) -> None:
        lock(llama, tmp_path / "other", preset="exact", seed=7)
        with pytest.raises(KeyFileError, match="belongs to another locked model"):
            unlock(locked, tmp_path / "back", tmp_path / "other.specdef-key")
        assert not (tmp_path / "back").exists()

    @pytest.mark.parametrize("where", ["middle", "end", "start"])
    def test_tampered_with(self, locked: Path, tmp_path: Path, where: str) -> None:
        key = tmp_path / "locked.specdef-key"
        data = bytearray(key.read_bytes())
        position = {"start": 9, "middle": data.index(b"exponent") + 14, "end": len(data) - 30}[where]
        data[position] ^= 1
        key.write_bytes(data)
        with pytest.raises(KeyFileError, match=r"changed after it was written|is not one"):
            unlock(locked, tmp_path / "back", key)
        assert not (tmp_path / "back").exists()

    def test_missing_or_something_else(self, locked: Path, tmp_path: Path) -> None:
        for path in (tmp_path / "none", locked / "config.json", locked / "model.safetensors"):
            with pytest.raises(KeyFileError, match="`key` must be a specdef key file"):
                unlock(locked, tmp_path / "back", path)

    def test_right_but_the_model_was_changed(self, locked: Path, tmp_path: Path) -> None:
        shard = locked / "model.safetensors"
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
        with pytest.raises(SpecdefError, match="was changed after locking"):
            unlock(locked, tmp_path / "back", tmp_path / "locked.specdef-key")
        assert not (tmp_path / "back").exists()


def test_a_lock_whose_channel_has_a_norm_weight_of_zero_is_found(llama: Path, tmp_path: Path) -> None:
    """Zero times a factor says nothing; before, it counted as a factor of 1, unlike the consumers'."""
    model = Path(shutil.copytree(llama, tmp_path / "model"))
    lock(model, tmp_path / "trial", preset="exact", pairs=["norm"])
    tensors, trial = load_file(model / "model.safetensors"), load_file(tmp_path / "trial" / "model.safetensors")
    name = "model.layers.0.input_layernorm.weight"
    tensors[name][tensors[name] != trial[name]] = 0.0
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    lock(model, tmp_path / "locked", preset="exact", pairs=["norm"])
    assert torch.equal(load_file(tmp_path / "locked" / "model.safetensors")[name], tensors[name])
    alone, beside = verify(tmp_path / "locked"), verify(tmp_path / "locked", original=model)
    assert "equal the original's times 2^20 in 4/4 norm pairs" in beside.checks[1].detail
    assert beside.passed
    assert "the others cannot be told from natural scales without --original" in alone.checks[1].detail
    assert alone.passed is not False


def test_dead_channels_are_never_chosen(llama: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(llama, tmp_path / "model"))
    tensors = load_file(model / "model.safetensors")
    up = tensors["model.layers.0.mlp.up_proj.weight"]
    keep = 5
    alive = up[keep].clone()
    up.zero_()
    up[keep] = alive
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    lock(model, tmp_path / "locked", preset="exact", pairs=["updown"], layers=[0])
    after = load_file(tmp_path / "locked" / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert np.flatnonzero((after != up).any(1)).tolist() == [keep]
