"""A model folder as a float32 GGUF file, the format of llama.cpp: every weight keeps its value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.checkpoint.header import load_json_object
from specdef.errors import SpecdefError

if TYPE_CHECKING:
    import torch

FAMILIES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""`model_type` in config.json -> architecture of GGUF."""


def write_gguf(folder: Path, path: Path) -> None:
    """Write a Llama, Mistral or Qwen2 folder as GGUF, without a tokenizer: token ids in, logits out.

    Args:
        folder: a Hugging Face folder.
        path: the file to write.

    Raises:
        SpecdefError: another family, or a config with what this file does not carry over (scaled rotary embeddings).
    """
    import gguf

    config = load_json_object(folder / "config.json")
    family = FAMILIES.get(str(config.get("model_type")))
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10_000.0)}
    scaled = rope.get("rope_type", "default") != "default" or config.get("rope_scaling")
    if family is None or scaled or "quantization_config" in config:
        raise SpecdefError(
            f"`runtime` llama.cpp must get a model of {', '.join(FAMILIES)} with plain rotary embeddings and no added "
            f"layers; {folder} is {config.get('model_type')!r}. Convert and compare it by hand."
        )
    writer = gguf.GGUFWriter(path, family)
    _describe(writer, config, rope)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.upper()], int(config["num_hidden_layers"]))
    tied = bool(config.get("tie_word_embeddings", False))
    for name, weight in _weights(folder):
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise SpecdefError(f"Tensor {name} of {folder} must have a name in GGUF; it has none. Use another runtime.")
        if tied and target == "output.weight":
            continue
        writer.add_tensor(target, _laid_out(name, weight, config, family).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: Any, config: Mapping[str, Any], rope: Mapping[str, Any]) -> None:
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(0)
    writer.add_tokenizer_model("no_vocab")


def _weights(folder: Path) -> Any:
    from safetensors import safe_open

    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                if not name.endswith("rotary_emb.inv_freq"):
                    yield name, file.get_tensor(name).float()


def _laid_out(name: str, weight: torch.Tensor, config: Mapping[str, Any], family: str) -> torch.Tensor:
    """The rows as GGUF wants them: llama's rotary planes are neighbours there, and halves in transformers."""
    heads = int(config["num_attention_heads"])
    if family == "llama" and ".self_attn.k_proj." in name:
        heads = int(config.get("num_key_value_heads") or heads)
    elif family != "llama" or ".self_attn.q_proj." not in name:
        return weight
    planes = weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:])
    return planes.swapaxes(1, 2).reshape(weight.shape)
