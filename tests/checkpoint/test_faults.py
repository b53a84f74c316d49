"""Hostile and broken folders: one sentence each, nothing written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pico
import pytest
import torch
from safetensors.torch import load_file, save_file

from specdef import lock
from specdef.checkpoint.header import write_header
from specdef.checkpoint.layout import INDEX
from specdef.errors import CheckpointError, PlanError, SpecdefError


@pytest.fixture
def model(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


def _shard(model: Path) -> Path:
    return model / "model.safetensors"


def _refused(model: Path, error: type[SpecdefError], match: str, **options: object) -> None:
    before = sorted(p.name for p in model.parent.iterdir())
    with pytest.raises(error, match=match):
        lock(model, model.parent / "out", **options)  # type: ignore[arg-type]
    assert sorted(p.name for p in model.parent.iterdir()) == before


def _edit_tensor(model: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(_shard(model))
    tensors[name] = change(tensors[name].clone()).contiguous()
    save_file(tensors, _shard(model), {"format": "pt"})


def _rewrite_header(model: Path, change: Callable[[str], str]) -> None:
    raw = _shard(model).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    text = change(raw[8 : 8 + length].decode()).encode()
    _shard(model).write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def test_a_truncated_shard(model: Path) -> None:
    _shard(model).write_bytes(_shard(model).read_bytes()[:-100])
    _refused(model, CheckpointError, r"the file has [\d,]+ \(truncated\?\)")


def test_a_header_longer_than_the_file(model: Path) -> None:
    _shard(model).write_bytes((10**9).to_bytes(8, "little") + b"{}")
    _refused(model, CheckpointError, r"its header claims 1,000,000,000 bytes and the file has 10")


def test_an_empty_shard(model: Path) -> None:
    _shard(model).write_bytes(b"")
    _refused(model, CheckpointError, "its header claims 0 bytes and the file has 0")


def test_a_header_that_is_no_json(model: Path) -> None:
    _rewrite_header(model, lambda text: text.replace("{", "[", 1))
    _refused(model, CheckpointError, "its header is not valid JSON")


def test_a_header_nested_without_end(model: Path) -> None:
    _shard(model).write_bytes((200_000).to_bytes(8, "little") + b"[" * 200_000)
    _refused(model, CheckpointError, "its header nests deeper than 64 levels")


def test_a_tensor_named_twice_in_a_header(model: Path) -> None:
    _rewrite_header(model, lambda text: text.replace("layers.1.mlp.up_proj", "layers.0.mlp.up_proj"))
    _refused(model, CheckpointError, r"tensor name model.layers.0.mlp.up_proj.weight appears twice")


def test_overlapping_tensors(model: Path) -> None:
    header = write_header({"a": ("F32", (4,)), "b": ("F32", (4,))}, None)
    _shard(model).write_bytes(header.replace(b"[16,32]", b"[12,28]") + bytes(32))
    _refused(model, CheckpointError, "the data of tensor b overlaps its neighbour or leaves a hole")


def test_an_unknown_dtype(model: Path) -> None:
    _rewrite_header(model, lambda text: text.replace('"F32"', '"Q99"', 1))
    _refused(model, CheckpointError, "has the unknown dtype 'Q99'")


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "..", ""])
def test_an_index_that_points_elsewhere(model: Path, name: str) -> None:
    pico.shard(model)
    index = model / INDEX
    entries = json.loads(index.read_text())
    entries["weight_map"] = dict.fromkeys(entries["weight_map"], name)
    index.write_text(json.dumps(entries))
    _refused(model, CheckpointError, "a shard must be a plain file name in the same folder")


def test_a_missing_shard(model: Path) -> None:
    pico.shard(model)
    (model / "b.safetensors").unlink()
    _refused(model, CheckpointError, r"Shard b.safetensors named in .* is missing")


def test_a_tensor_in_two_shards(model: Path) -> None:
    pico.shard(model)
    index = model / INDEX
    first = load_file(model / "a.safetensors")
    name = next(iter(first))
    second = load_file(model / "b.safetensors") | {name: first[name]}
    save_file(second, model / "b.safetensors")
    _refused(model, CheckpointError, f"Tensor {name} is in only one of")
    assert json.loads(index.read_text())["weight_map"][name] == "a.safetensors"


def test_a_tensor_twice_in_the_index(model: Path) -> None:
    pico.shard(model)
    index = model / INDEX
    name = next(iter(json.loads(index.read_text())["weight_map"]))
    index.write_text(index.read_text().replace('"weight_map": {', f'"weight_map": {{"{name}": "b.safetensors", ', 1))
    _refused(model, CheckpointError, f"gives the name {name} twice")


def test_a_shard_linked_from_outside(model: Path) -> None:
    outside = model.parent / "elsewhere.safetensors"
    _shard(model).rename(outside)
    _shard(model).symlink_to(outside)
    _refused(model, CheckpointError, r"is a link to .*elsewhere.safetensors, outside the model folder")


def test_the_hub_caches_own_links_are_fine(model: Path) -> None:
    cache = model.parent / "models--org--name"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "abc"
    shutil.copytree(model, snapshot)
    (snapshot / "model.safetensors").rename(cache / "blobs" / "123")
    (snapshot / "model.safetensors").symlink_to("../../blobs/123")
    assert lock(snapshot, model.parent / "out", preset="exact").out is not None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(model: Path, bad: float) -> None:
    def spoil(tensor: torch.Tensor) -> torch.Tensor:
        tensor[0, 3] = bad
        return tensor

    _edit_tensor(model, "model.embed_tokens.weight", spoil)
    held = "tensor model.embed_tokens.weight of file model.safetensors holds NaN or infinity"
    _refused(model, PlanError, held, preset="exact")
    _refused(model, PlanError, "`model` must have finite outputs on the calibration text", preset="ladder")


def test_pickle_weights_say_how_to_convert(model: Path) -> None:
    _shard(model).rename(model / "pytorch_model.bin")
    _refused(
        model, CheckpointError, r"pickle weights \(pytorch_model.bin\).*save_pretrained\(NEW\)` writes safetensors"
    )


def test_other_weights_would_leak(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"x")
    _refused(model, CheckpointError, "also holds pytorch_model.bin, which would be published")


def test_no_weights_at_all(model: Path) -> None:
    _shard(model).unlink()
    _refused(model, CheckpointError, "must hold model.safetensors or model.safetensors.index.json")


@pytest.mark.parametrize("text", ["", "[]", '{"model_type": "llama", "model_type": "gpt2"}', "\xff"])
def test_a_broken_config(model: Path, text: str) -> None:
    (model / "config.json").write_text(text, encoding="latin-1")
    _refused(model, CheckpointError, r"config.json")


def test_out_exists(model: Path) -> None:
    (model.parent / "out").mkdir()
    _refused(model, CheckpointError, "`out` must be a new folder")


def test_out_inside_the_model(model: Path) -> None:
    with pytest.raises(CheckpointError, match="`out` must lie outside the model folder"):
        lock(model, model / "out", preset="exact")
    assert not (model / "out").exists()


def test_out_in_a_folder_that_does_not_exist(model: Path) -> None:
    with pytest.raises(CheckpointError, match="`out` must be in a folder that exists"):
        lock(model, model.parent / "no" / "out", preset="exact")


def test_a_tensor_with_an_odd_shape_names_it(model: Path) -> None:
    _edit_tensor(model, "model.layers.1.self_attn.v_proj.weight", lambda t: t[:3])
    _refused(model, SpecdefError, r"Tensor model.layers.1.self_attn.v_proj.weight must have length \d+ on axis 0")


def test_an_unreadable_place_to_write(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    _refused(model, CheckpointError, r"Writing .*out failed \(Permission denied\); nothing was left behind")


def test_a_device_file_in_the_folder(model: Path) -> None:
    os.mkfifo(model / "pipe")
    _refused(model, CheckpointError, "is not a regular file")
