"""Binding a map to a checkpoint: what does not match is an error that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pico
import pytest
from channel_scaling import read_config, read_shapes

from specdef.architectures.registry import architecture_of
from specdef.architectures.resolve import read_dims, resolve
from specdef.errors import ArchitectureError, PlanError
from specdef.locks.selection import select_pairs

Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]
LAYER = "model.layers.1."


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Config, Shapes]]:
    """config.json and shapes of a pico checkpoint, fresh copies on every call."""
    root = tmp_path_factory.mktemp("headers")
    folders: dict[str, Path] = {}

    def read(name: str) -> tuple[Config, Shapes]:
        if name not in folders:
            folders[name] = pico.build(name, root / name)
        return read_config(folders[name]), read_shapes(folders[name])

    return read


Headers = Callable[[str], tuple[Config, Shapes]]


def test_unknown_model_type_lists_near_matches() -> None:
    with pytest.raises(ArchitectureError, match=r"got 'qwen4'.* Near matches: qwen\d.*Adding a family"):
        architecture_of({"model_type": "qwen4"})


def test_absent_model_type() -> None:
    with pytest.raises(ArchitectureError, match=r"`model_type` in config.json must be one of .* got None"):
        architecture_of({})


def test_missing_tensor(headers: Headers) -> None:
    config, shapes = headers("llama")
    del shapes[LAYER + "self_attn.o_proj.weight"]
    with pytest.raises(ArchitectureError, match=r"o_proj.weight must exist.* missing shard"):
        resolve(config, shapes)


def test_missing_expert(headers: Headers) -> None:
    config, shapes = headers("mixtral")
    del shapes[LAYER + "block_sparse_moe.experts.2.w1.weight"]
    with pytest.raises(ArchitectureError, match=r"experts.2.w1.weight must exist"):
        resolve(config, shapes)


def test_wrong_shape(headers: Headers) -> None:
    config, shapes = headers("phi3")
    shapes[LAYER + "mlp.gate_up_proj.weight"] = (64, 32)
    with pytest.raises(ArchitectureError, match=r"gate_up_proj.weight must have length 96 on axis 0; got shape \[64"):
        resolve(config, shapes)


def test_wrong_number_of_heads(headers: Headers) -> None:
    config, shapes = headers("llama")
    with pytest.raises(ArchitectureError, match=r"v_proj.weight must have length 32 on axis 0; got shape \[16, 32\]"):
        resolve({**config, "num_key_value_heads": 4}, shapes)
    with pytest.raises(ArchitectureError, match="must be a multiple of `num_key_value_heads`; got 4 and 3"):
        resolve({**config, "num_key_value_heads": 3}, shapes)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "mixtral", "bert", "vit"])
def test_unknown_tensor_in_a_layer(name: str, headers: Headers) -> None:
    config, shapes = headers(name)
    layer = next(tensor for tensor in shapes if ".1." in tensor).split(".1.")[0] + ".1."
    shapes[layer + "adapter.weight"] = (32, 32)
    with pytest.raises(ArchitectureError, match=r"adapter.weight is not part of the .* map.* Add it"):
        resolve(config, shapes)


def test_layers_beyond_the_config(headers: Headers) -> None:
    config, shapes = headers("llama")
    with pytest.raises(ArchitectureError, match=r"config.json says 1 layers; found tensor model.layers.1"):
        resolve({**config, "num_hidden_layers": 1}, shapes)
    with pytest.raises(ArchitectureError, match=r"model.layers.2.* must exist"):
        resolve({**config, "num_hidden_layers": 3}, shapes)


def test_weights_of_another_family(headers: Headers) -> None:
    config, _ = headers("llama")
    _, shapes = headers("gpt2")
    with pytest.raises(ArchitectureError, match=r"A Llama checkpoint must hold tensors named 'model.layers.0"):
        resolve(config, shapes)


def test_fused_experts_of_transformers_memory_are_refused(headers: Headers) -> None:
    config, shapes = headers("mixtral")
    fused = {name: shape for name, shape in shapes.items() if "block_sparse_moe" not in name}
    for layer in range(2):
        fused[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = (3, 96, 32)
    with pytest.raises(ArchitectureError, match=r"mlp.experts.gate_up_proj is not part of the Mixtral map"):
        resolve(config, fused)


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "num_attention_heads"])
def test_bad_sizes(key: str) -> None:
    config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    for bad in (0, -1, "4", 1.5, True):
        with pytest.raises(ArchitectureError, match=rf"`{key}` in config.json must be a positive whole number"):
            read_dims({**config, key: bad})
    with pytest.raises(ArchitectureError, match=rf"config.json must give `{key}`"):
        read_dims({other: value for other, value in config.items() if other != key})


def test_layers_in_stages_are_numbered_through(headers: Headers) -> None:
    model = resolve(*headers("resnet"))
    assert model.layer_paths == ("0.layers.0", "1.layers.0", "1.layers.1")
    assert [pair.id for pair in model.pairs] == ["conv.0.first", "conv.1.first", "conv.2.first"]
    assert [pair.size for pair in model.pairs] == [8, 16, 16], "every stage has its own width"
    tensor = "resnet.encoder.stages.1.layers.1.layer.1.convolution.weight"
    assert model.layer_of(tensor) == 2
    assert model.component_of(tensor) == "layer.*.convolution"
    assert model.layer_of("resnet.embedder.embedder.convolution.weight") is None


def test_bottlenecks_have_two_pairs_of_their_inner_width(headers: Headers) -> None:
    pairs = resolve(*headers("resnet-bottleneck")).pairs
    assert {pair.id for pair in pairs if pair.layer == 0} == {"conv.0.first", "conv.0.second"}
    assert {pair.size for pair in pairs} == {8}, "a quarter of the block's 32"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"depths": [1]}, r"`depths` in config.json must have one number a stage, as `hidden_sizes`; got \[1\]"),
        ({"depths": [1, 0]}, r"`depths` in config.json must be a list of positive whole numbers; got \[1, 0\]"),
        ({"hidden_sizes": 8}, r"`hidden_sizes` in config.json must be a list of positive whole numbers; got 8"),
        ({"layer_type": "wide"}, r"`layer_type` in config.json must be basic or bottleneck; got 'wide'"),
        ({"hidden_sizes": [8, 12]}, r"stages.1.layers.0.layer.0.normalization.weight must have length 12 on axis 0"),
        ({"depths": [1, 1]}, r"config.json says 2 layers; found tensor resnet.encoder.stages.1.layers.1"),
        ({"layer_type": "bottleneck"}, r"stages.0.layers.0.layer.0.normalization.weight must have length 2 on axis 0"),
    ],
)
def test_a_resnet_that_is_not_as_its_config_says(changes: Config, sentence: str, headers: Headers) -> None:
    config, shapes = headers("resnet")
    with pytest.raises(ArchitectureError, match=sentence):
        resolve({**config, **changes}, shapes)


def test_a_resnet_whose_activation_is_not_homogeneous_has_no_pair(headers: Headers) -> None:
    config, shapes = headers("resnet")
    model = resolve({**config, "hidden_act": "gelu"}, shapes)
    assert model.pairs == ()
    with pytest.raises(PlanError, match=r"`model` must have a pair that scales exactly; this ResNet .* GELU or SiLU"):
        select_pairs(model, None, None)


def test_an_unknown_tensor_in_a_block(headers: Headers) -> None:
    config, shapes = headers("resnet")
    shapes["resnet.encoder.stages.1.layers.1.squeeze.weight"] = (16, 16)
    with pytest.raises(ArchitectureError, match=r"layers.1.squeeze.weight is not part of the ResNet map"):
        resolve(config, shapes)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("resnet", "resnet.encoder.stages.1.gate.weight"),
        ("resnet", "resnet.encoder.stages.1.layers.gate.weight"),
        ("resnet-bare", "encoder.stages.1.gate.weight"),
        ("resnet-cifar", "layer1.gate.weight"),
        ("llama", "model.layers.gate.weight"),
    ],
)
def test_an_unknown_tensor_beside_the_layers_under_their_name(family: str, name: str, headers: Headers) -> None:
    """It may read what a block gives, or stand inside one under a name nobody knows."""
    config, shapes = headers(family)
    with pytest.raises(ArchitectureError, match=rf"Tensor {name} is not part of the .* map"):
        resolve(config, {**shapes, name: (16, 16)})


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes", "compressed-tensors", "mxfp4"])
def test_quantization_config_is_refused_by_name(method: str, headers: Headers) -> None:
    config, shapes = headers("llama")
    with pytest.raises(ArchitectureError, match=f"got quant_method '{method}'.*unquantised"):
        resolve({**config, "quantization_config": {"quant_method": method}}, shapes)


def test_quantization_config_without_a_method_is_refused(headers: Headers) -> None:
    config, shapes = headers("llama")
    with pytest.raises(ArchitectureError, match="got quant_method 'unnamed'"):
        resolve({**config, "quantization_config": {"load_in_8bit": True}}, shapes)


def test_nested_quantization_config_is_refused(headers: Headers) -> None:
    config, shapes = headers("gemma3-multimodal")
    config["text_config"]["quantization_config"] = {"quant_method": "gptq"}
    with pytest.raises(ArchitectureError, match="got quant_method 'gptq'"):
        resolve(config, shapes)


def test_inject_locked_model_has_its_own_sentence(headers: Headers) -> None:
    config, shapes = headers("llama")
    with pytest.raises(ArchitectureError, match=r"already locked by specdef \(inject\)"):
        resolve({**config, "quantization_config": {"quant_method": "specdef"}}, shapes)


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ("qweight", "GPTQ or AWQ"),
        ("weight_packed", "compressed-tensors"),
        ("weight_scale", "FP8"),
        ("weight_scale_inv", "fine-grained FP8"),
        ("weight.absmax", "bitsandbytes 4-bit"),
        ("SCB", "bitsandbytes 8-bit"),
    ],
)
def test_quantised_storage_without_a_config_is_named(stored: str, found: str, headers: Headers) -> None:
    config, shapes = headers("llama")
    del shapes[LAYER + "mlp.up_proj.weight"]
    shapes[LAYER + f"mlp.up_proj.{stored}"] = (32, 6)
    with pytest.raises(ArchitectureError, match=rf"got {found}.* storage in tensor .*up_proj.{stored}"):
        resolve(config, shapes)


def test_gpt_oss_resolves_with_its_experts_in_mxfp4(headers: Headers) -> None:
    config, shapes = headers("gpt_oss")
    for layer in range(2):
        experts = f"model.layers.{layer}.mlp.experts."
        for name, rows, blocks in (("gate_up_proj", 96, 1), ("down_proj", 32, 2)):
            del shapes[experts + name]
            shapes[f"{experts}{name}_blocks"] = (3, rows, blocks, 16)
            shapes[f"{experts}{name}_scales"] = (3, rows, blocks)
    model = resolve({**config, "quantization_config": {"quant_method": "mxfp4"}}, shapes)
    assert [pair.id for pair in model.pairs] == ["norm.0.attention", "norm.1.attention", "vo.0", "vo.1"]
    assert not any("experts" in slot.tensor for pair in model.pairs for slot in pair.slots)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpt2", "tied to the input embedding"),
        ("llama-tied", "tied to the input embedding"),
        ("llama-bare", "does not hold lm_head.weight"),
        ("llama-classifier", "does not hold lm_head.weight"),
    ],
)
def test_the_head_pair_is_withheld_with_its_reason(name: str, reason: str, headers: Headers) -> None:
    model = resolve(*headers(name))
    assert "head" not in {pair.kind for pair in model.pairs}
    (withheld,) = model.withheld
    assert reason in withheld.reason


def test_the_head_pair_needs_to_be_the_norms_only_reader(headers: Headers) -> None:
    config, shapes = headers("llama")
    assert "head" in {pair.kind for pair in resolve(config, shapes).pairs}
    model = resolve(config, {**shapes, "v_head.weight": (1, 32)})
    assert "head" not in {pair.kind for pair in model.pairs}
    assert "v_head.weight may read the final norm" in model.withheld[0].reason


def test_an_embedding_is_tied_unless_the_config_denies_it(headers: Headers) -> None:
    config, shapes = headers("llama")
    del config["tie_word_embeddings"]
    model = resolve(config, shapes)
    assert "head" not in {pair.kind for pair in model.pairs}
    assert "unless config.json denies it" in model.withheld[0].reason


def test_gemma3_sizes_that_published_configs_leave_out() -> None:
    family = architecture_of({"model_type": "gemma3"})
    dims = read_dims(
        {**family.config_defaults, "hidden_size": 2560, "num_hidden_layers": 34, "intermediate_size": 10240}
    )
    assert (dims.num_heads, dims.num_kv_heads, dims.head_dim) == (8, 4, 256)


@pytest.mark.parametrize("buffer", ["attn.bias", "attn.masked_bias"])
def test_buffers_of_published_gpt2_files_are_known(buffer: str, headers: Headers) -> None:
    config, shapes = headers("gpt2-bare")
    resolve(config, {**shapes, f"h.0.{buffer}": (1, 1, 64, 64)})


def test_layer_norms_of_published_bert_files_are_known(headers: Headers) -> None:
    config, shapes = headers("bert")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): shape
        for name, shape in shapes.items()
    }
    assert len(resolve(config, renamed).pairs) == 2
