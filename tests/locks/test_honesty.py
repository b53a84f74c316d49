"""Claims that would be false, found by attacking the first version: each is refused, stated, or failed by verify."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pico
import pytest
import torch
from safetensors.torch import load_file, save_file

from specdef import inspect_model, lock, unlock, verify
from specdef.checkpoint.digests import file_digest
from specdef.errors import CheckpointError, KeyFileError, PlanError, SpecdefError


@pytest.fixture
def model(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


def _edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))


def _edit_weights(model: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


def test_subnormal_weights_lock_only_where_unlocking_is_exact(model: Path, tmp_path: Path) -> None:
    def shrink(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"][:, ::2] = 1e-39

    _edit_weights(model, shrink)
    report = lock(model, tmp_path / "locked", preset="exact", pairs=["norm", "vo"])
    assert report.key is not None
    unlock(tmp_path / "locked", tmp_path / "back", report.key)
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    with pytest.raises(PlanError, match="subnormals"):
        lock(model, tmp_path / "other", preset="exact", pairs=["updown"])


@pytest.mark.parametrize("architectures", [None, ["LlamaModel"]])
def test_a_model_read_without_its_head_keeps_its_final_norm(
    architectures: list[str] | None, model: Path, tmp_path: Path
) -> None:
    _edit_json(model / "config.json", lambda config: config.update(architectures=architectures))
    report = lock(model, tmp_path / "locked", preset="exact")
    assert "head" not in report.strength["pairs"]
    assert verify(tmp_path / "locked", original=model).passed


def test_squared_relu_doubles_the_exponent(tmp_path: Path) -> None:
    model = pico.build("gpt_neox-serial", tmp_path / "model")
    with pytest.raises(PlanError, match=r"at most 2\^30 for pair fc.0, whose activation is homogeneous of degree 2"):
        lock(model, tmp_path / "locked", preset="exact", pairs=["fc"], multiplier="2^58")


def test_float32_weights_that_run_in_float16(model: Path, tmp_path: Path) -> None:
    _edit_json(model / "config.json", lambda config: config.update(dtype="float16"))
    with pytest.raises(PlanError, match=r"at most 2\^5, direction up, for float16"):
        lock(model, tmp_path / "locked", preset="exact")


def test_offset_norms_claim_their_stored_dtype_only(tmp_path: Path) -> None:
    model = pico.build("gemma2", tmp_path / "model")
    assert lock(model, tmp_path / "locked", preset="exact").exactness["exact_in"] == ["float32"]


def test_bfloat16_gemma_leaves_its_norms_out_and_says_so(tmp_path: Path) -> None:
    model = pico.build("gemma2", tmp_path / "model", dtype=torch.bfloat16)
    report = lock(model, tmp_path / "locked", preset="exact")
    assert report.left_out
    assert set(report.strength["pairs"]) == {"vo", "updown"}
    assert "Nearest multipliers that fit" in next(iter(report.left_out.values()))
    with pytest.raises(PlanError, match="Nearest multipliers that fit"):
        lock(model, tmp_path / "again", preset="exact", pairs=["norm"])


def test_an_inject_lock_needs_the_quantisation_entry(tmp_path: Path) -> None:
    model = pico.build("gpt_oss", tmp_path / "model")
    entry = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    _edit_json(model / "config.json", lambda config: config.update(quantization_config=entry))
    with pytest.raises(PlanError, match="must be absent for an inject lock"):
        lock(model, tmp_path / "locked", preset="paper", rank=4)


@pytest.mark.parametrize(
    "name", ["rust_model.ot", "MODEL.SAFETENSORS", "model.safetensors.bak", "model.onnx_data", "weights.zip", "weights"]
)
def test_unlocked_weights_under_any_name_stop_the_lock(name: str, model: Path, tmp_path: Path) -> None:
    shutil.copy(model / "model.safetensors", model / name)
    with pytest.raises(CheckpointError, match=f"also holds {name}, which would be published"):
        lock(model, tmp_path / "locked", preset="exact")


def test_a_key_may_not_lie_in_the_model_nor_be_published(model: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="`key` must lie outside the model folder"):
        lock(model, tmp_path / "locked", preset="exact", key=model / "key")
    lock(model, tmp_path / "locked", preset="exact", key=tmp_path / "key")
    (tmp_path / "key").rename(model / "notes")
    with pytest.raises(CheckpointError, match="also holds notes"):
        lock(model, tmp_path / "again", preset="exact")


def test_a_key_without_its_folder_is_removed(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        target.mkdir()
        (target / "file").touch()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(CheckpointError, match="failed"):
        lock(model, tmp_path / "locked", preset="exact")
    assert not (tmp_path / "locked.specdef-key").exists()


def test_files_added_by_a_hub_do_not_stop_unlocking(model: Path, tmp_path: Path) -> None:
    report = lock(model, tmp_path / "locked", preset="exact")
    (tmp_path / "locked" / ".gitattributes").write_text("*.safetensors filter=lfs")
    assert verify(tmp_path / "locked").passed
    assert report.key is not None
    unlock(tmp_path / "locked", tmp_path / "back", report.key)
    assert {p.name for p in (tmp_path / "back").iterdir()} == {p.name for p in model.iterdir()}


class TestVerifyIsNotFooled:
    @pytest.fixture
    def locked(self, model: Path, tmp_path: Path) -> Path:
        lock(model, tmp_path / "locked", preset="exact")
        return tmp_path / "locked"

    @pytest.mark.parametrize("name", ["rust_model.ot", "adapter_config.json", "modeling.py"])
    def test_by_files_the_manifest_does_not_know(self, name: str, locked: Path) -> None:
        (locked / name).write_text("{}")
        checks = {check.name: check for check in verify(locked).checks}
        assert not checks["integrity"].passed
        assert f"1 unknown ({name})" in checks["integrity"].detail

    @pytest.mark.parametrize(
        "change",
        [
            {"files": {}},
            {"tensors": {}},
            {"strength": {}},
            {"method": "magic"},
            {"strength": {"exponent": 20, "multiplier": "2^60", "direction": "up", "pairs": {"vo": 2}}},
            {"strength": {"exponent": 1, "multiplier": "2^1", "direction": "up", "pairs": {}}},
            {"strength": {"exponent": -5, "multiplier": "2^-5", "direction": "up", "pairs": {"vo": 2}}},
            {"strength": {"exponent": "a", "multiplier": "2^a", "direction": "up", "pairs": {"vo": 2}}},
        ],
    )
    def test_by_a_malformed_manifest(self, change: dict[str, Any], locked: Path) -> None:
        _edit_json(locked / "specdef_lock.json", lambda manifest: manifest.update(change))
        with pytest.raises(CheckpointError, match="is malformed"):
            verify(locked)

    def test_by_unlocked_weights_with_fresh_digests(self, locked: Path, model: Path) -> None:
        shutil.copy(model / "model.safetensors", locked / "model.safetensors")

        def refresh(manifest: dict[str, Any]) -> None:
            manifest["files"]["model.safetensors"] = file_digest(locked / "model.safetensors")

        _edit_json(locked / "specdef_lock.json", refresh)
        checks = {check.name: check.passed for check in verify(locked).checks}
        assert checks == {"integrity": False, "lock": False}

    @pytest.mark.parametrize("claimed", [10, 28, 40])
    def test_by_another_strength_than_the_weights_show(self, claimed: int, locked: Path, model: Path) -> None:
        def boast(manifest: dict[str, Any]) -> None:
            manifest["strength"].update(exponent=claimed, multiplier=f"2^{claimed}")

        _edit_json(locked / "specdef_lock.json", boast)
        assert not verify(locked).checks[1].passed
        assert not verify(locked, original=model).checks[1].passed

    def test_a_small_multiplier_needs_the_original(self, model: Path, tmp_path: Path) -> None:
        lock(model, tmp_path / "small", preset="exact", multiplier="2^2")
        alone, beside = verify(tmp_path / "small"), verify(tmp_path / "small", original=model)
        assert alone.checks[1].passed is None
        assert not alone.complete
        assert "cannot be told from natural scales without --original" in alone.checks[1].detail
        assert beside.passed

    def test_by_an_inject_lock_that_boasts(self, model: Path, tmp_path: Path) -> None:
        lock(model, tmp_path / "paper", preset="paper", rank=2)
        manifest = tmp_path / "paper" / "specdef_lock.json"
        for change in ({"multiplier": "19000"}, {"top_k": 20}):
            saved = manifest.read_text()
            _edit_json(manifest, lambda entries, change=change: entries["strength"].update(change))
            assert not verify(tmp_path / "paper").checks[1].passed
            manifest.write_text(saved)
        assert verify(tmp_path / "paper").passed


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": ["llama"]},
        {"hidden_size": "x"},
        {"num_hidden_layers": -1},
        {"architectures": ["AutoConfig"]},
        {"architectures": {"a": 1}},
        {"hidden_act": "bogus"},
        {"rope_parameters": "bogus"},
        {"dtype": "bogus"},
    ],
)
def test_odd_configs_are_one_sentence(change: dict[str, Any], model: Path, tmp_path: Path) -> None:
    """Refused by the lock, or by the check that has to load the model; never a traceback."""
    _edit_json(model / "config.json", lambda config: config.update(change))
    for preset in ("exact", "paper"):
        try:
            lock(model, tmp_path / preset, preset=preset)
            verify(tmp_path / preset, original=model)
        except SpecdefError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_weights_that_are_not_finite_are_not_inspected(model: Path) -> None:
    _edit_weights(model, lambda tensors: tensors["model.layers.0.mlp.up_proj.weight"].fill_(float("nan")))
    for spectra in (True, False):
        with pytest.raises(CheckpointError, match="Weights must be finite"):
            inspect_model(model, spectra=spectra)


def test_a_shape_of_many_dimensions_is_refused_at_once(model: Path) -> None:
    text = json.dumps({"x": {"dtype": "F32", "shape": [2**62] * 60_000, "data_offsets": [0, 4]}}).encode()
    (model / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"0000")
    with pytest.raises(CheckpointError, match="tensor x has the malformed shape"):
        inspect_model(model)
