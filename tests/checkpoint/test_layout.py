"""Pipelines as one model: names, files, edits, and what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pico_diffusion
import pytest
from safetensors.numpy import load_file, save_file

from specdef import lock
from specdef.checkpoint.edits import NewTensor, ShardEdits
from specdef.checkpoint.layout import component_configs, config_files, library_of, load_config
from specdef.checkpoint.reader import open_checkpoint
from specdef.checkpoint.small_files import changed_index
from specdef.checkpoint.writer import write_shards
from specdef.errors import CheckpointError
from specdef.models.base import kind_of
from specdef.models.sources import find_model

UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"


@pytest.fixture
def made(pipeline: Path) -> Path:
    return pipeline


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def test_a_pipeline_is_read_as_one_model(made: Path) -> None:
    config = load_config(made)
    assert config["model_type"] == "diffusion"
    assert config["architectures"] == ["StableDiffusionPipeline"]
    assert config["components"]["unet"]["cross_attention_dim"] == pico_diffusion.WIDTH
    assert sorted(config["components"]) == ["scheduler", "text_encoder", "tokenizer", "unet"]
    found = open_checkpoint(made)
    assert list(found.shards) == [TEXT, UNET]
    for part, shard in (("unet", UNET), ("text_encoder", TEXT)):
        stored = load_file(made / shard)
        assert {t.name for t in found.shards[shard].tensors} == {f"{part}.{name}" for name in stored}
        tensor = found.shards[shard].tensors[3]
        values = stored[tensor.name.removeprefix(f"{part}.")]
        assert np.array_equal(found.map_tensor(shard, tensor), values)
    assert kind_of(made).name == "diffusion"
    assert find_model(str(made)) == made


def test_headers_are_written_with_the_names_of_the_file(made: Path, tmp_path: Path) -> None:
    found = open_checkpoint(made)
    dropped, added = found.shards[TEXT].tensors[0].name, "text_encoder.more"
    new = NewTensor("F32", (2,), lambda: np.ones(2, np.float32).tobytes())
    write_shards(found, tmp_path, {TEXT: ShardEdits(dropped=frozenset({dropped}), added={added: new})})
    before, after = load_file(made / TEXT), load_file(tmp_path / TEXT)
    assert set(after) == set(before) - {dropped.removeprefix("text_encoder.")} | {"more"}
    assert (tmp_path / UNET).read_bytes() == (made / UNET).read_bytes()


def test_shards_of_a_component(folder: Path, made: Path) -> None:
    tensors = load_file(folder / UNET)
    (folder / UNET).unlink()
    names = sorted(tensors)
    for shard, chosen in (("a", names[::2]), ("b", names[1::2])):
        save_file({name: tensors[name] for name in chosen}, folder / "unet" / f"{shard}.safetensors")
    weight_map = {name: f"{'ab'[at % 2]}.safetensors" for at, name in enumerate(names)}
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    found = open_checkpoint(folder)
    assert list(found.shards) == [TEXT, "unet/a.safetensors", "unet/b.safetensors"]
    assert found.shapes == open_checkpoint(made).shapes
    index.write_text(json.dumps({"weight_map": {**weight_map, names[0]: "b.safetensors"}}))
    with pytest.raises(CheckpointError, match=rf"Tensor {names[0]} is in only one of .* and shard b.safetensors of"):
        open_checkpoint(folder)


def _declare(folder: Path, declared: Mapping[str, object]) -> None:
    for name, entry in declared.items():
        path = folder / name / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": entry}))


OWN: dict[str, dict[str, Any]] = {
    "text_encoder": {"quant_method": "specdef", "modules": {"a.q": 1, "a.k": 2}, "factored": {}, "note": {"a": 0}},
    "unet": {"quant_method": "specdef", "modules": {"a.q": 3}, "factored": {"b": 4}, "note": {"a": 0}},
}
TOGETHER = {
    "quant_method": "specdef",
    "modules": {"text_encoder.a.q": 1, "text_encoder.a.k": 2, "unet.a.q": 3},
    "factored": {"unet.b": 4},
    "note": {"a": 0},
}


def test_layers_that_components_declare_are_declared_by_the_names_of_tensors(folder: Path) -> None:
    assert "quantization_config" not in load_config(folder)
    _declare(folder, OWN)
    config = load_config(folder)
    assert config["quantization_config"] == TOGETHER
    assert component_configs(folder, config) == {}, "as the files are"
    changed = {**config, "quantization_config": {**TOGETHER, "modules": {"unet.a.q": 3}, "factored": {"unet.b": 5}}}
    before = {name: json.loads((folder / name / "config.json").read_text()) for name in OWN}
    assert component_configs(folder, changed) == {
        "text_encoder/config.json": {k: v for k, v in before["text_encoder"].items() if k != "quantization_config"},
        "unet/config.json": {**before["unet"], "quantization_config": {**OWN["unet"], "factored": {"b": 5}}},
    }
    nothing = {key: value for key, value in config.items() if key != "quantization_config"}
    assert sorted(component_configs(folder, nothing)) == ["text_encoder/config.json", "unet/config.json"]
    assert all("quantization_config" not in after for after in component_configs(folder, nothing).values())


def test_one_component_may_declare_layers_and_the_others_none(folder: Path) -> None:
    for name in ("text_encoder", "unet"):
        _declare(folder, {"text_encoder": None, "unet": None, name: OWN[name]})
        declared = load_config(folder)["quantization_config"]
        assert declared["modules"] == {f"{name}.{module}": value for module, value in OWN[name]["modules"].items()}


def test_the_configuration_of_a_model_is_one_file(tmp_path: Path) -> None:
    assert component_configs(tmp_path, {"model_type": "llama"}) == {"config.json": {"model_type": "llama"}}


def _indexed(folder: Path) -> dict[str, str]:
    """Put the text encoder's weights into a shard with an index; its weight map."""
    weight_map = dict.fromkeys(load_file(folder / TEXT), "a.safetensors")
    (folder / TEXT).rename(folder / "text_encoder" / "a.safetensors")
    index = folder / "text_encoder" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


def test_a_component_of_transformers_in_shards_has_its_index(folder: Path, made: Path) -> None:
    _indexed(folder)
    assert list(open_checkpoint(folder).shards) == ["text_encoder/a.safetensors", UNET]
    assert open_checkpoint(folder).shapes == open_checkpoint(made).shapes


def test_the_index_of_a_component_follows_its_edits(folder: Path) -> None:
    name, weight_map = "text_encoder/model.safetensors.index.json", _indexed(folder)
    found, dropped = open_checkpoint(folder), next(iter(weight_map))
    new = NewTensor("F32", (2,), lambda: bytes(8))
    edits = {
        "text_encoder/a.safetensors": ShardEdits(
            dropped=frozenset({f"text_encoder.{dropped}"}), added={"text_encoder.more": new}
        ),
        UNET: ShardEdits(added={"unet.more": new}),
    }
    index = changed_index(found, edits)
    assert sorted(index) == [name]
    wanted = {**weight_map, "more": "a.safetensors"}
    del wanted[dropped]
    assert json.loads(index[name])["weight_map"] == wanted


def test_what_is_missing_is_missing_of_the_model_unless_it_was_called_otherwise(folder: Path) -> None:
    shutil.rmtree(folder / "unet")
    with pytest.raises(CheckpointError, match="`model` must hold every component"):
        load_config(folder)
    with pytest.raises(CheckpointError, match="`original` must hold every component"):
        load_config(folder, argument="original")


def test_which_library_loads_a_folder(made: Path, llama: Path) -> None:
    assert (library_of(made), library_of(llama)) == ("diffusers", "transformers")


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / name)


def _index(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model_index.json").write_text(json.dumps({**pico_diffusion.INDEX, **changes}))

    return change


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without("unet"), r"`model` must hold every component that its model_index.json names; .* has no unet\."),
        (_without("tokenizer"), r"has no tokenizer\. Download it, or write \[null, null\] for it there\."),
        (_index(safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"]), "has no safety_checker"),
        (_index(_class_name=None), "must name a class and components of a pipeline"),
        (lambda folder: (folder / UNET).unlink(), f"`model` must hold {UNET} or {UNET}.index.json"),
        (
            lambda folder: (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.bin"),
            r"holds pickle weights \(unet/diffusion_pytorch_model.bin\)",
        ),
        (
            lambda folder: (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"{}"),
            "also holds unet/diffusion_pytorch_model.fp16.safetensors",
        ),
    ],
)
def test_a_broken_pipeline_is_one_sentence(spoil: Callable[[Path], None], said: str, folder: Path) -> None:
    spoil(folder)
    with pytest.raises(CheckpointError, match=said):
        lock(folder, folder.parent / "locked", preset="exact")
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_what_a_model_needs_cannot_be_left_out(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`exclude` must leave in what the model needs; 'unet/config.json'"):
        open_checkpoint(folder, exclude=["unet/config.json"])
    assert config_files(["a/config.json", "model_index.json", "b.txt"]) == {"a/config.json", "model_index.json"}
