"""Names in a model folder: of files, shards and tensors, as strangers may choose them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pico
import pytest

from specdef import inspect_model, lock, unlock, verify
from specdef.checkpoint.expect import expect_tensors
from specdef.checkpoint.header import num_bytes, write_header
from specdef.checkpoint.layout import INDEX
from specdef.checkpoint.reader import open_checkpoint
from specdef.errors import CheckpointError, SpecdefError


@pytest.fixture
def model(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


def _refused(model: Path) -> str:
    with pytest.raises(SpecdefError) as caught:
        open_checkpoint(model)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("folder", [False, True])
def test_a_file_name_that_is_no_utf8(model: Path, folder: bool) -> None:
    """A manifest could not name it."""
    name = os.fsencode(model) + b"/caf\xe9"
    os.mkdir(name) if folder else open(name, "wb").close()  # noqa: PTH102, PTH123
    assert _refused(model) == (f"File {model}/caf\\udce9 must have a name that is valid UTF-8. Rename or remove it.")


def test_a_folder_whose_own_path_is_no_utf8_works(llama: Path, tmp_path: Path) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    place.mkdir()
    model = Path(shutil.copytree(llama, place / "model"))
    report = lock(model, place / "locked", preset="exact")
    assert report.out is not None
    assert verify(report.out).passed
    with pytest.raises(CheckpointError, match=r"caf\\udce9/locked exists"):
        lock(model, place / "locked", preset="exact")


@pytest.mark.parametrize("name", ["\x1b[31mweights.bin", "\u202enib.weights.bin", "two\nlines.bin"])
def test_names_a_terminal_would_obey_are_spelled_out(model: Path, name: str) -> None:
    (model / name).write_bytes(b"x")
    assert ascii(name)[1:-1] in _refused(model)


@pytest.mark.parametrize(
    "name", ["\x1b[2J.safetensors", "a\x00b.safetensors", "\x1b", "../\x1b.safetensors", "x" * 9999]
)
def test_an_index_with_such_names(model: Path, name: str) -> None:
    pico.shard(model)
    entries = json.loads((model / INDEX).read_text())
    entries["weight_map"] = dict.fromkeys(entries["weight_map"], name)
    (model / INDEX).write_text(json.dumps(entries))
    assert len(_refused(model)) < 4000


def test_a_tensor_of_such_a_name_is_carried_over_and_spelled_out(model: Path, tmp_path: Path) -> None:
    pico.shard(model)
    name = "model.\x1b[31m.weight"
    entries = json.loads((model / INDEX).read_text())
    entries["weight_map"][name] = "a.safetensors"
    (model / INDEX).write_text(json.dumps(entries))
    assert r"Tensor model.\x1b[31m.weight is in only one of" in _refused(model)


@pytest.mark.parametrize("size", [3 << 30, (64 << 20) + 1])
def test_a_config_of_gigabytes_is_refused_unread(model: Path, size: int) -> None:
    with (model / "config.json").open("r+b") as file:
        file.truncate(size)
    assert _refused(model) == f"File {model}/config.json is larger than 64 MiB. Restore it from its source."


def test_links_in_a_circle(model: Path) -> None:
    (model / "one").symlink_to("two")
    (model / "two").symlink_to("one")
    assert "one" in _refused(model)
    (model.parent / "loop").symlink_to("loop")
    with pytest.raises(CheckpointError, match="must be a folder"):
        open_checkpoint(model.parent / "loop", argument="original")


def test_a_path_no_file_system_takes() -> None:
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(CheckpointError, match=r"`model` must be a folder.* is not a folder"):
            open_checkpoint(Path(name))


@pytest.mark.parametrize("dtype", ["F4", "F8_E4M3", "I32", "U16", "BOOL", "C64"])
def test_weights_of_a_dtype_nothing_computes_in_are_one_sentence(model: Path, dtype: str, tmp_path: Path) -> None:
    """F4 has two numbers a byte. What reads, inspects or locks it says so; beside other locks its bytes are kept."""
    name = "model.layers.0.mlp.up_proj.weight"
    header = open_checkpoint(model).shards["model.safetensors"]
    whole = (model / "model.safetensors").read_bytes()
    layout = {t.name: (dtype if t.name == name else t.dtype, t.shape) for t in header.tensors}
    data = {t.name: whole[t.start : t.end] for t in header.tensors}
    data[name] = bytes(num_bytes(dtype, next(t.shape for t in header.tensors if t.name == name)))
    (model / "model.safetensors").write_bytes(write_header(layout, {"format": "pt"}) + b"".join(data.values()))
    checkpoint = open_checkpoint(model)
    shard, tensor = checkpoint.locate()[name]
    with pytest.raises(CheckpointError, match=f"of file model.safetensors is stored as {dtype}; only F16, BF16"):
        checkpoint.map_tensor(shard, tensor)
    for work in (
        lambda: lock(model, tmp_path / "locked", preset="exact"),
        lambda: lock(model, tmp_path / "locked", preset="exact", pairs=["updown"]),
        lambda: inspect_model(model),
    ):
        with pytest.raises(SpecdefError, match=f"stored as {dtype}"):
            work()
    key = lock(model, tmp_path / "locked", preset="exact", pairs=["vo"]).key
    assert key is not None
    unlock(tmp_path / "locked", tmp_path / "back", key)
    for path in model.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_what_a_reader_relies_on_is_checked_before_reading(llama: Path) -> None:
    checkpoint = open_checkpoint(llama)
    name = "model.norm.weight"
    expect_tensors(checkpoint, {name: ("F32", (32,)), "missing": ("F64", (1,))})
    for wrong in (("F64", (32,)), ("F32", (32, 1)), ("F32", (16,))):
        with pytest.raises(CheckpointError) as caught:
            expect_tensors(checkpoint, {name: wrong})
        assert str(caught.value) == (
            f"Tensor model.norm.weight of file model.safetensors must be {wrong[0]} of shape {list(wrong[1])}, as "
            "config.json says; it is F32 of shape [32]. Restore the published model."
        )
    assert np.isfinite(checkpoint.map_tensor(*checkpoint.locate()[name])).all()
