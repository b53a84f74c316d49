"""The inject lock on checkpoint folders: close to the original's function, back to the byte, refused before writing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pico
import pytest
import torch
from safetensors.torch import load_file, save_file

import specdef
from specdef import inspect_model, lock, unlock, verify
from specdef.errors import PlanError
from specdef.locks.kinds.inject import plan as plan_file
from specdef.locks.kinds.inject.plan import InjectPlan, plan_inject

LOADABLE = [name for name in pico.FAMILIES if name not in ("vit", "deit")]


def _files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("family", LOADABLE)
def test_every_family_locks_loads_and_unlocks(family: str, tmp_path: Path) -> None:
    model = pico.build(family, tmp_path / "model")
    report = lock(model, tmp_path / "locked", preset="paper", rank=4, num_matrices=2)
    result = verify(tmp_path / "locked", original=model)
    assert result.passed, result.checks
    assert inspect_model(tmp_path / "locked").verdict.sign.lock == "inject"
    assert report.key is not None
    unlock(tmp_path / "locked", tmp_path / "back", report.key)
    assert _files(tmp_path / "back") == _files(model)


@pytest.mark.parametrize("basis", ["svd", "axis"])
@pytest.mark.parametrize("form", ["dense", "low_rank"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forms_and_bases_keep_the_function(basis: str, form: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model", dtype=dtype)
    options = {"preset": "paper", "rank": 4, "basis": basis, "form": form, "multiplier": "2^10"}
    if form == "low_rank" and (basis == "axis" or dtype == torch.bfloat16):
        with pytest.raises(PlanError, match=r"must be left out with basis axis|`form` dense or `basis` axis"):
            lock(model, tmp_path / "locked", **options)  # type: ignore[arg-type]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
        return
    lock(model, tmp_path / "locked", **options)  # type: ignore[arg-type]
    assert verify(tmp_path / "locked", original=model).passed


def test_a_wrong_compensation_is_caught(llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", preset="paper", rank=4)
    tensors = load_file(tmp_path / "locked" / "model.safetensors")
    name = next(name for name in tensors if name.endswith(".compensation"))
    tensors[name] = torch.eye(len(tensors[name]), dtype=tensors[name].dtype)
    save_file(tensors, tmp_path / "locked" / "model.safetensors", {"format": "pt"})
    checks = {check.name: check.passed for check in verify(tmp_path / "locked", original=llama).checks}
    assert checks == {"integrity": False, "lock": False, "function": False}


def test_a_sharded_checkpoint_keeps_its_split_and_index(llama: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(llama, tmp_path / "model"))
    shards = pico.shard(model)
    report = lock(model, tmp_path / "locked", preset="paper", rank=4)
    assert verify(tmp_path / "locked", original=model).passed
    locked = {s: load_file(tmp_path / "locked" / s) for s in shards}
    new_index = json.loads((tmp_path / "locked" / "model.safetensors.index.json").read_text())
    assert new_index["weight_map"] == {name: shard for shard, held in locked.items() for name in held}
    sizes = sum(t.numel() * t.element_size() for held in locked.values() for t in held.values())
    assert new_index["metadata"]["total_size"] == sizes
    assert report.key is not None
    unlock(tmp_path / "locked", tmp_path / "back", report.key)
    assert _files(tmp_path / "back") == _files(model)


def test_a_multiplier_no_dtype_can_honour_is_refused_before_writing(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"Tensor model\.layers\.\d\..* of file model.safetensors"):
        lock(llama, tmp_path / "locked", preset="paper", rank=4, multiplier=1e39)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"components": ["x_proj"]}, "`components` must be drawn from q_proj"),
        ({"num_matrices": 99}, "`num_matrices` must lie between 1 and 6, the matrices to draw from"),
        ({"layers": [9]}, "`layers` must lie between 0 and 1"),
        ({"rank": 1000}, "k"),
        ({"channels": 2}, "`channels` is no option of lock inject"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], match: str, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=match):
        lock(llama, tmp_path / "out", preset="paper", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_layers_and_components_that_share_no_matrix_are_refused(tmp_path: Path) -> None:
    """Before, an IndexError: of a sparse layer no gate_proj is a matrix that can be locked."""
    model = pico.build("qwen3_moe-mixed", tmp_path / "model")
    options: dict[str, Any] = {"preset": "paper", "rank": 3, "components": ["gate_proj"]}
    for more in ({}, {"share": 1.0}):
        with pytest.raises(PlanError, match=r"`layers` and `components` must .* got gate_proj in layers 1, which"):
            lock(model, tmp_path / "out", layers=[1], **options, **more)
    assert not (tmp_path / "out").exists()


def test_named_layers_lock_every_component_there(llama: Path, tmp_path: Path) -> None:
    report = lock(llama, tmp_path / "out", preset="paper", rank=4, layers=[1], components=["v_proj", "o_proj"])
    assert sorted(report.strength["matrices"]) == [
        "model.layers.1.self_attn.o_proj",
        "model.layers.1.self_attn.v_proj",
    ]


def test_a_family_whose_modules_bear_other_names_is_refused(tmp_path: Path) -> None:
    model = pico.build("vit", tmp_path / "model")
    with pytest.raises(specdef.SpecdefError, match="becomes a module of another name in ViTForImageClassification"):
        lock(model, tmp_path / "out", preset="paper")


def test_the_manifest_states_the_worst_layers_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = (1e-9, 3e-7, 2e-8)

    def given(*arguments: Any) -> InjectPlan:
        made = plan_inject(*arguments)
        layers = (replace(layer, function_error=error) for layer, error in zip(made.layers, errors, strict=True))
        return replace(made, layers=tuple(layers))

    monkeypatch.setattr(plan_file, "plan_inject", given)
    model = pico.build("llama", tmp_path / "model")
    lock(model, tmp_path / "locked", preset="paper", rank=4, num_matrices=3)
    exactness = json.loads((tmp_path / "locked" / "specdef_lock.json").read_text())["exactness"]
    assert exactness["function_error"] == 3e-7
    assert "3.0e-07" in exactness["closeness"]


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_strength_a_tenth_off_is_seen(factor: float, tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    lock(model, tmp_path / "locked", preset="paper", rank=4, num_matrices=2, multiplier="1e3")
    manifest = tmp_path / "locked" / "specdef_lock.json"
    entries = json.loads(manifest.read_text())
    entries["strength"]["multiplier"] = f"{factor * 1e3:g}"
    manifest.write_text(json.dumps(entries))
    found = next(check for check in verify(tmp_path / "locked").checks if check.name == "lock")
    assert found.passed is False
